"""What an answer is held to and what comes of it: plain values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from engine.llm import JsonObject


class MetricKind(StrEnum):
    EXACT = "exact"
    CONTAINS = "contains"
    REGEX = "regex"
    NUMERIC = "numeric"
    JSON = "json"
    JSON_SCHEMA = "json_schema"
    LENGTH = "length"
    EXPRESSION = "expression"
    LLM_JUDGE = "llm_judge"
    PAIRWISE_JUDGE = "pairwise_judge"


JUDGES = frozenset({MetricKind.LLM_JUDGE, MetricKind.PAIRWISE_JUDGE})
"""The kinds that need answers of a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One measure. `parameters` are by their wire names; engine.evaluation.parameters says which there are.

    A `hard` one is a gate: a value below `threshold` makes the whole score 0. `weight` 0 makes it a gate and no more.
    """

    kind: MetricKind
    name: str
    weight: float = 1.0
    hard: bool = False
    threshold: float = 1.0
    parameters: JsonObject = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether it can change a score; what is neither weighed nor a gate is only looked at."""
        return self.hard or self.weight > 0


def judge_models(metrics: Sequence[Metric]) -> tuple[str, ...]:
    """The names of the models that judge, in the metrics' order."""
    return tuple(metric.parameters["model"] for metric in metrics if metric.kind in JUDGES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """An answer with what it answers. All are any JSON; `expected` is None where nothing is expected."""

    output: Any
    input: Any = None
    expected: Any = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """`score` in [0, 1]; `feedback` says what is wrong and what would be right; `details` are any JSON."""

    score: float
    feedback: str | None = None
    details: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unscored:
    """Nobody could say: a judge or a provider failed. Never counts as a 0."""

    reason: str


@dataclass(frozen=True, slots=True)
class Errored:
    """The measure itself is wrong for this sample."""

    reason: str


Outcome = Value | Unscored | Errored


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric with its outcome."""

    metric: Metric
    outcome: Outcome

    @property
    def gate_failed(self) -> bool:
        return self.metric.hard and isinstance(self.outcome, Value) and self.outcome.score < self.metric.threshold


def combined(measured: Sequence[Measured]) -> Outcome:
    """What all metrics together say of one answer: their weighted mean.

    A metric that is in error makes it an error, a gate that failed makes it 0, and what nobody could score leaves it
    unscored, in this order; what does not count may lack a value. Gates alone, of weight 0, make it 1 where all of them
    hold.
    """
    errors = [each for each in measured if isinstance(each.outcome, Errored)]
    if errors:
        return Errored("; ".join(_told(each) for each in errors))
    feedback = _feedback(measured)
    if any(each.gate_failed for each in measured):
        return Value(score=0.0, feedback=feedback)
    counting = [each for each in measured if each.metric.counts] or measured
    unscored = [each for each in counting if isinstance(each.outcome, Unscored)]
    if unscored:
        return Unscored("; ".join(_told(each) for each in unscored))
    return Value(score=_mean(measured), feedback=feedback)


def settled_by(measured: Sequence[Measured]) -> str | None:
    """Why nothing that is not measured yet can change what `combined` says; None where it can."""
    for each in measured:
        if isinstance(each.outcome, Errored):
            return f"not asked: {each.metric.name} is in error"
    failed = next((each.metric.name for each in measured if each.gate_failed), None)
    return None if failed is None else f"not asked: {failed} has failed, which is a hard gate"


def complete(metrics: Sequence[Metric], measured: Sequence[Measured]) -> tuple[Measured, ...]:
    """All of `metrics` in their order; what is not among `measured` is unscored, for the reason of `settled_by`."""
    known = {each.metric.name: each for each in measured}
    unasked = Unscored(settled_by(measured) or "not asked")
    return tuple(known.get(metric.name, Measured(metric, unasked)) for metric in metrics)


def _told(measured: Measured) -> str:
    assert not isinstance(measured.outcome, Value)
    return f"{measured.metric.name}: {measured.outcome.reason}"


def _feedback(measured: Sequence[Measured]) -> str | None:
    lines = [
        f"{each.metric.name}: {each.outcome.feedback}"
        for each in measured
        if isinstance(each.outcome, Value) and each.outcome.feedback
    ]
    return "\n".join(lines) or None


def _mean(measured: Sequence[Measured]) -> float:
    weighted = [(each.metric.weight, each.outcome.score) for each in measured if isinstance(each.outcome, Value)]
    total = sum(weight for weight, _ in weighted)
    return sum(weight * score for weight, score in weighted) / total if total else 1.0
