"""Prompt flows: bodies in and out."""

from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, ConfigDict, Field

from api.models.base import Body, Resource, Short, resource_to_wire
from api.services.prompt_flows import FlowEdit
from engine.records.values import PromptFlow

_EITHER_NAME = AliasChoices("promptIds", "prompts")
_ITS_ALIAS = {
    "prompts": {
        "type": "array",
        "items": {"type": "string"},
        "deprecated": True,
        "description": "The same as promptIds, which goes first",
    }
}


def _show_alias(schema: dict[str, Any]) -> None:
    schema["properties"].update(_ITS_ALIAS)


MOST_PROMPTS = 10_000
LONGEST_ID = 255


def _few_ids(value: list[str]) -> list[str]:
    if len(value) > MOST_PROMPTS:
        raise ValueError(f"are more than {MOST_PROMPTS}")
    if any(len(prompt) > LONGEST_ID for prompt in value):
        raise ValueError(f"holds an id longer than {LONGEST_ID} characters")
    return value


Name = Annotated[str, Field(min_length=1), Short]
PromptIds = Annotated[list[str], AfterValidator(_few_ids)]


class PromptFlowCreateRequest(Body):
    model_config = ConfigDict(json_schema_extra=_show_alias)

    name: Name
    prompt_ids: PromptIds = Field(min_length=0, validation_alias=_EITHER_NAME)
    is_public: bool = False


class PromptFlowUpdateRequest(Body):
    model_config = ConfigDict(json_schema_extra=_show_alias)

    name: Name | None = None
    prompt_ids: PromptIds | None = Field(None, validation_alias=_EITHER_NAME)
    is_public: bool | None = None

    def edit(self) -> FlowEdit:
        return FlowEdit(name=self.name, prompt_ids=self.prompt_ids, is_public=self.is_public)


class PromptFlowResponse(Resource):
    flow_id: str
    name: str
    prompt_ids: list[str]
    console_prompts: list[str] = Field(alias="prompts", deprecated="The same as promptIds")
    client_id: str | None = None
    is_public: bool


def flow_to_wire(flow: PromptFlow) -> dict[str, Any]:
    return {
        "flowId": flow.id,
        "name": flow.name,
        "promptIds": flow.prompt_ids,
        "prompts": flow.prompt_ids,
        "clientId": flow.client_id,
        "isPublic": flow.is_public,
        **resource_to_wire(flow),
    }
