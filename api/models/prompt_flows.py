"""Prompt flows: bodies in and out."""

from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, ConfigDict, Field

from api.models.base import Answer, Body, Resource, Short, resource_to_wire
from api.services.flow_canaries import CanaryWish
from api.services.prompt_flows import FlowEdit
from engine.records.canaries import MOST_CANARIES, MOST_SHARE, Canary, CanaryStatus, Finding
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


Share = Annotated[float, Field(gt=0, le=MOST_SHARE)]
Shares = Annotated[dict[Annotated[str, Short], Share], Field(max_length=MOST_CANARIES)]


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
    canary: Shares | None = Field(
        None, description="Which share of the jobs gets which prompt in its parent's place; {} ends all canaries."
    )
    canary_evaluator: Annotated[str, Short, Field(min_length=1)] | None = None
    canary_sample: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Which share of the canaries' jobs is scored."
    )

    def edit(self) -> FlowEdit:
        canaries = CanaryWish(shares=self.canary, evaluator=self.canary_evaluator, sample=self.canary_sample)
        return FlowEdit(name=self.name, prompt_ids=self.prompt_ids, is_public=self.is_public, canaries=canaries)


class CanaryFinding(Answer):
    """What the last look said. `mean` is of the canary's score minus that of the flow's own prompts for the same job.

    `pWorse` and `pBetter` are one-sided; `low` and `high` are the 95 % interval of the mean.
    """

    pairs: int
    mean: float
    low: float | None
    high: float | None
    p_worse: float
    p_better: float
    at: str


class CanaryState(Answer):
    """How a canary does: `pairs` are scored on both sides so far, of `lookedAt` jobs that were in the sample."""

    prompt_id: str
    replaces: str
    share: float
    state: CanaryStatus
    since: str
    ended_at: str | None
    pairs: int
    looked_at: int
    looks: int
    finding: CanaryFinding | None
    reason: str | None


class PromptFlowResponse(Resource):
    flow_id: str
    name: str
    prompt_ids: list[str]
    console_prompts: list[str] = Field(alias="prompts", deprecated="The same as promptIds")
    client_id: str | None = None
    is_public: bool
    canary: dict[str, float] | None = Field(description="The shares that canaries have now.")
    canary_evaluator: str | None
    canary_sample: float
    canary_state: list[CanaryState]


def flow_to_wire(flow: PromptFlow) -> dict[str, Any]:
    return {
        "flowId": flow.id,
        "name": flow.name,
        "promptIds": flow.prompt_ids,
        "prompts": flow.prompt_ids,
        "clientId": flow.client_id,
        "isPublic": flow.is_public,
        "canary": flow.shares or None,
        "canaryEvaluator": flow.canary_evaluator,
        "canarySample": flow.canary_sample,
        "canaryState": [_canary_to_wire(canary) for canary in flow.canaries],
        **resource_to_wire(flow),
    }


def _canary_to_wire(canary: Canary) -> dict[str, Any]:
    return {
        "promptId": canary.prompt_id,
        "replaces": canary.replaces,
        "share": canary.share if canary.has_share else 0.0,
        "state": canary.status,
        "since": canary.since,
        "endedAt": canary.ended_at,
        "pairs": len(canary.differences),
        "lookedAt": len(canary.pairs),
        "looks": canary.looks,
        "finding": None if canary.finding is None else _finding_to_wire(canary.finding),
        "reason": canary.reason,
    }


def _finding_to_wire(finding: Finding) -> dict[str, Any]:
    interval = finding.interval
    return {
        "pairs": finding.pairs,
        "mean": finding.mean,
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
        "pWorse": finding.worse,
        "pBetter": finding.better,
        "at": finding.at,
    }
