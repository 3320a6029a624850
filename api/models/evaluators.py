"""Evaluators: bodies in and out."""

from typing import Annotated, Any

from pydantic import Field

from api.models.base import Answer, JsonObjectIn, Resource, StrictBody, resource_to_wire
from api.models.datasets import Name
from api.services.evaluators import EvaluatorDraft
from engine.evaluation.values import Measured, Metric, MetricKind, Outcome, Unscored, Value
from engine.records.evaluators import Evaluator

MOST_METRICS = 50

Description = Annotated[str, Field(max_length=2_000)]


class MetricModel(StrictBody):
    """One measure. A `hard` one below its `threshold` makes the whole score 0."""

    kind: MetricKind
    name: Name | None = Field(None, description="The kind, if absent.")
    weight: float = Field(1.0, ge=0, le=1e6)
    hard: bool = False
    threshold: float = Field(1.0, ge=0, le=1)
    parameters: JsonObjectIn = Field(default_factory=dict, description="What the kind is told, by its own names.")

    def to_domain(self) -> Metric:
        return Metric(
            kind=self.kind,
            name=self.name or str(self.kind),
            weight=self.weight,
            hard=self.hard,
            threshold=self.threshold,
            parameters=self.parameters,
        )


class EvaluatorCreateRequest(StrictBody):
    name: Name
    description: Description | None = None
    metrics: Annotated[list[MetricModel], Field(min_length=1, max_length=MOST_METRICS)]

    def draft(self) -> EvaluatorDraft:
        metrics = [metric.to_domain() for metric in self.metrics]
        return EvaluatorDraft(name=self.name, description=self.description, metrics=metrics)


class EvaluatorResponse(Resource):
    """`version` rises with every evaluator of the same name."""

    evaluator_id: str
    client_id: str
    name: str
    version: int
    description: str | None = None
    metrics: list[MetricModel]


class OutcomeModel(Answer):
    """`outcome` is value, unscored or error: `score` is in [0, 1] and null but for a value, which has no `reason`."""

    outcome: str
    score: float | None = None
    feedback: str | None = None
    details: dict[str, Any] = Field(default_factory=dict)
    reason: str | None = None


class MetricOutcomeModel(OutcomeModel):
    name: str
    kind: MetricKind


def evaluator_to_wire(evaluator: Evaluator) -> dict[str, Any]:
    return {
        "evaluatorId": evaluator.id,
        "clientId": evaluator.client_id,
        "name": evaluator.name,
        "version": evaluator.version,
        "description": evaluator.description,
        "metrics": [metric_to_wire(metric) for metric in evaluator.metrics],
        **resource_to_wire(evaluator),
    }


def metric_to_wire(metric: Metric) -> dict[str, Any]:
    return {
        "kind": metric.kind,
        "name": metric.name,
        "weight": metric.weight,
        "hard": metric.hard,
        "threshold": metric.threshold,
        "parameters": metric.parameters,
    }


def outcome_to_wire(outcome: Outcome) -> dict[str, Any]:
    """The fields of OutcomeModel."""
    if isinstance(outcome, Value):
        told = {"score": outcome.score, "feedback": outcome.feedback, "details": outcome.details}
        return {"outcome": "value", **told, "reason": None}
    kind = "unscored" if isinstance(outcome, Unscored) else "error"
    return {"outcome": kind, "score": None, "feedback": None, "details": {}, "reason": outcome.reason}


def measured_to_wire(measured: Measured) -> dict[str, Any]:
    return {"name": measured.metric.name, "kind": measured.metric.kind, **outcome_to_wire(measured.outcome)}
