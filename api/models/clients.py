"""Clients: bodies in and out."""

from typing import Annotated, Any

from pydantic import Field

from api.models.base import Answer, Body, Resource, resource_to_wire
from api.models.money import BudgetModel, BudgetStateModel, budget_to_wire, state_to_wire
from api.services.clients import ClientWithKey
from engine.budgets import BudgetState
from engine.records.values import Client

Name = Annotated[str, Field(min_length=1, max_length=255)]


class ClientCreateRequest(Body):
    name: Name
    budget: BudgetModel | None = None

    def fields(self) -> dict[str, Any]:
        """By the names of engine.records.values.Client."""
        return {"name": self.name, "budget": None if self.budget is None else self.budget.to_budget()}


class ClientUpdateRequest(Body):
    name: Name | None = None
    enabled: bool | None = None
    budget: BudgetModel | None = Field(None, description="null removes it.")

    def fields(self) -> dict[str, Any]:
        """What is given, by the names of engine.records.values.Client. null counts as given for the budget alone."""
        fields = {name: getattr(self, name) for name in ("name", "enabled") if getattr(self, name) is not None}
        if "budget" in self.model_fields_set:
            fields["budget"] = None if self.budget is None else self.budget.to_budget()
        return fields


class ClientResponse(Resource):
    client_id: str
    name: str
    enabled: bool
    budget: BudgetModel | None
    budget_state: BudgetStateModel | None = Field(
        description="How it stands: in GET /clients/{client_id}; null in other answers and without a budget."
    )


class ClientCreateResponse(ClientResponse):
    api_key: str = Field(alias="api_key", description="Shown this once.")
    console_api_key: str = Field(alias="apiKey", deprecated="The same as api_key")


class ClientRotateKeyResponse(Answer):
    client_id: str
    api_key: str = Field(alias="api_key", description="Shown this once.")
    console_id: str = Field(alias="_id", deprecated="The same as clientId")
    console_api_key: str = Field(alias="apiKey", deprecated="The same as api_key")
    created_at: str = Field(deprecated="When the client was made")


def client_to_wire(client: Client, state: BudgetState | None = None) -> dict[str, Any]:
    return {
        "clientId": client.id,
        "name": client.name,
        "enabled": client.enabled,
        "budget": budget_to_wire(client.budget),
        "budgetState": state_to_wire(state),
        **resource_to_wire(client),
    }


def created_client_to_wire(made: ClientWithKey) -> dict[str, Any]:
    return {**client_to_wire(made.client), "api_key": made.key, "apiKey": made.key}


def rotated_key_to_wire(made: ClientWithKey) -> dict[str, Any]:
    client = made.client
    return {
        "clientId": client.id,
        "api_key": made.key,
        "apiKey": made.key,
        "_id": client.id,
        "createdAt": client.metadata.created_at,
    }
