"""A model's limits, fallbacks and targets: bodies in and out."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from api.models.base import Body, Safe
from engine.records.values import ROUTER, Model, Strategy, Target

Name = Annotated[str, Field(min_length=1, max_length=255)]
Limit = Annotated[int, Field(ge=1), Safe]


class LimitsModel(Body):
    """What the model may be asked, by all replicas together; null does not restrict."""

    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    concurrency: Limit | None = Field(None, description="Calls in flight at a time.")


class TargetModel(Body):
    """A model that a router may choose."""

    model: Name
    weight: int = Field(1, ge=1, le=1000, description="Its share of the jobs with the strategy `weighted`.")


def _distinct(names: list[str]) -> list[str]:
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ValueError(f"names {name} twice")
    return names


def _distinct_targets(targets: list[TargetModel]) -> list[TargetModel]:
    _distinct([target.model for target in targets])
    return targets


class RoutesIn(Body):
    """What creating and changing a model share."""

    limits: LimitsModel | None = Field(None, description="In a change, what is not given stays; null removes.")
    fallbacks: Annotated[list[Name], AfterValidator(_distinct)] | None = Field(
        None,
        max_length=10,
        description="Names of models that answer in this one's place, in order, when its provider fails for good, its "
        "quota is used up or its breaker is open.",
    )
    fallback_after: float | None = Field(
        None,
        ge=0,
        le=86_400,
        description="After how many seconds of a rate limit the fallbacks answer too; null: never.",
    )
    targets: Annotated[list[TargetModel], AfterValidator(_distinct_targets)] | None = Field(
        None, max_length=50, description="The models among which a model of sdk `router` chooses; at least one."
    )
    strategy: Strategy | None = Field(None, description="How a router chooses; weighted if it is not given.")


def _limits(limits: LimitsModel | None) -> dict[str, int | None]:
    names = LimitsModel.model_fields if limits is None else limits.model_fields_set
    return {name: getattr(limits, name, None) for name in names}


def _targets(targets: list[TargetModel] | None) -> tuple[Target, ...]:
    return tuple(Target(target.model, target.weight) for target in targets or ())


_MEANT: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "limits": _limits,
        "fallbacks": lambda names: tuple(names or ()),
        "fallback_after": lambda seconds: seconds,
        "targets": _targets,
        "strategy": lambda strategy: strategy or Strategy.WEIGHTED,
    }
)


def routes_of(body: RoutesIn) -> dict[str, Any]:
    """What is given, by the names of engine.records.values.Model, null as what it removes to.

    `limits` are those of Limits' fields that are given, by name.
    """
    return {name: _MEANT[name](getattr(body, name)) for name in _MEANT if name in body.model_fields_set}


def routes_to_wire(model: Model) -> dict[str, Any]:
    """The fields that ModelResponse has of them."""
    return {
        "limits": {
            "requestsPerMinute": model.limits.requests_per_minute,
            "tokensPerMinute": model.limits.tokens_per_minute,
            "concurrency": model.limits.concurrency,
        },
        "fallbacks": model.fallbacks,
        "fallbackAfter": model.fallback_after,
        "targets": [{"model": target.model, "weight": target.weight} for target in model.targets],
        "strategy": model.strategy if model.sdk == ROUTER else None,
    }
