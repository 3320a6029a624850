"""Models: bodies in and out."""

from decimal import Decimal
from typing import Annotated, Any, Self, cast

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from api.models.base import Body, Resource, Safe, Short, resource_to_wire
from api.models.model_routes import LimitsModel, Name, RoutesIn, TargetModel, routes_of, routes_to_wire
from engine.pricing import Prices
from engine.records.values import ROUTER, Model, Strategy

Text = Annotated[str, Field(min_length=1), Short]
Temperature = Annotated[float, Field(ge=0.0, le=2.0)]
Tokens = Annotated[int, Field(gt=0), Safe]
Price = Annotated[float, Field(ge=0.0)]


class CostModel(Body):
    """What `tokens` tokens cost, in and out; `cachedInput`, where it is given, is for input the vendor had cached."""

    tokens: Tokens
    currency: Text
    input: Price
    output: Price
    cached_input: Price | None = None


class ModelCreateRequest(RoutesIn):
    """A model of sdk `router` has no deployment of its own: all but name, sdk and targets may be left out."""

    name: Name
    sdk: str = Field(description="The name of a registered provider, for example OpenAI or test; or router.")
    endpoint: Text = Field(description="The provider's base URL, or `default` for the vendor's own.")
    api_type: Text
    api_version: Text
    deployment: Text
    service: Text | None = None
    key: Text = Field(
        description="The name under which the provider's secret is found, never the secret; `default` stands for the "
        "vendor's usual one, such as GROQ_API_KEY."
    )
    max_token: Tokens | None = None
    max_completion_token: Tokens | None = None
    min_temperature: Temperature
    max_temperature: Temperature
    cost: CostModel

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.max_temperature < self.min_temperature:
            raise ValueError("maxTemperature must not be less than minTemperature")
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _as_router(cls, body: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if cls is ModelCreateRequest and isinstance(body, dict) and body.get("sdk") == ROUTER:
            return cast(Self, RouterCreateRequest.model_validate(body))
        return handler(body)


class RouterCreateRequest(ModelCreateRequest):
    """Not in the document: the contract's fields stay required there, of whoever makes other models."""

    endpoint: Text = ""
    api_type: Text = ""
    api_version: Text = ""
    deployment: Text = ""
    key: Text = ""
    min_temperature: Temperature = 0.0
    max_temperature: Temperature = 2.0
    cost: CostModel = CostModel(tokens=1_000_000, currency="USD", input=0.0, output=0.0)


class ModelUpdateRequest(RoutesIn):
    name: Name | None = None
    sdk: str | None = None
    endpoint: Text | None = None
    api_type: Text | None = None
    api_version: Text | None = None
    deployment: Text | None = None
    service: Text | None = None
    key: Text | None = None
    max_token: Tokens | None = None
    max_completion_token: Tokens | None = None
    min_temperature: Temperature | None = None
    max_temperature: Temperature | None = None
    cost: CostModel | None = None


class ModelResponse(Resource):
    model_id: str = Field(alias="model_id")
    name: str
    sdk: str
    endpoint: str
    api_type: str
    api_version: str
    deployment: str
    service: str | None = None
    max_token: int | None = None
    max_completion_token: int | None = None
    min_temperature: float
    max_temperature: float
    cost: CostModel
    limits: LimitsModel
    fallbacks: list[str]
    fallback_after: float | None
    targets: list[TargetModel]
    strategy: Strategy | None = Field(description="A router's; null for other models.")


class ModelCreateResponse(ModelResponse):
    key: str = Field(description="The name under which the provider's secret is found.")


def fields_of(body: ModelCreateRequest | ModelUpdateRequest) -> dict[str, Any]:
    """What is given, by the names of engine.records.values.Model.

    null counts as not given, but for limits and routes: see `routes_of`.
    """
    given = {name: getattr(body, name) for name in type(body).model_fields if name not in RoutesIn.model_fields}
    cost = given.pop("cost")
    fields = {name: value for name, value in given.items() if value is not None} | routes_of(body)
    return fields if cost is None else {**fields, "prices": _prices(cost)}


def _prices(cost: CostModel) -> Prices:
    # By the shortest text of the float: 0.1 means a tenth, not its nearest binary fraction.
    return Prices(
        tokens=cost.tokens,
        currency=cost.currency,
        input=Decimal(repr(cost.input)),
        output=Decimal(repr(cost.output)),
        cached_input=None if cost.cached_input is None else Decimal(repr(cost.cached_input)),
    )


def model_to_wire(model: Model) -> dict[str, Any]:
    prices = model.prices
    return {
        "model_id": model.id,
        "name": model.name,
        "sdk": model.sdk,
        "endpoint": model.endpoint,
        "apiType": model.api_type,
        "apiVersion": model.api_version,
        "deployment": model.deployment,
        "service": model.service,
        "maxToken": model.max_token,
        "maxCompletionToken": model.max_completion_token,
        "minTemperature": model.min_temperature,
        "maxTemperature": model.max_temperature,
        "cost": {
            "tokens": prices.tokens,
            "currency": prices.currency,
            "input": float(prices.input),
            "output": float(prices.output),
            **({} if prices.cached_input is None else {"cachedInput": float(prices.cached_input)}),
        },
        **routes_to_wire(model),
        **resource_to_wire(model),
    }


def created_model_to_wire(model: Model) -> dict[str, Any]:
    return {**model_to_wire(model), "key": model.key}
