"""The evaluation of a job by an evaluator: its metrics first, then its judges as further calls of the same attempt."""

from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any

import structlog

from engine.errors import LeaseLost, MetasyncError
from engine.evaluation.answers import answer_of
from engine.evaluation.judging import JudgeCall, judge_calls, judged
from engine.evaluation.measures import Measures
from engine.evaluation.values import (
    JUDGES,
    Measured,
    Metric,
    Outcome,
    Sample,
    Unscored,
    Value,
    combined,
    complete,
    settled_by,
)
from engine.jobs.job import Job
from engine.llm import JsonObject
from engine.records.evaluators import Evaluator
from utilities.hop import Hop

Ask = Callable[[JudgeCall, Callable[[], int]], Awaitable[JsonObject]]
"""A judge's answer; the function numbers the calls of all judges of an attempt. Raises MetasyncError."""

log = structlog.get_logger(__name__)


class Scoring:
    """For one event loop. `hop` is best not the one that reaches the storage: metrics may take seconds."""

    def __init__(self, hop: Hop) -> None:
        self._hop = hop
        self._measures = Measures()

    async def measured(self, evaluator: Evaluator, sample: Sample) -> list[Measured]:
        """By all metrics that need no model."""
        return await self._hop(self._measures.measured, evaluator.metrics, sample)

    def close(self) -> None:
        self._measures.close()


def sample_of(job: Job, result: JsonObject) -> Sample:
    return Sample(output=answer_of(result), input=job.request_data, expected=job.expected)


async def judged_too(
    job: Job, evaluator: Evaluator, sample: Sample, measured: Sequence[Measured], ask: Ask
) -> JsonObject:
    """The evalResult by what is `measured` and by the judges, one after another while they can change something.

    Raises LeaseLost alone: a judge that fails leaves its metric unscored.
    """
    known, numbers = list(measured), count(1)
    for metric in evaluator.metrics:
        if metric.kind in JUDGES and settled_by(known) is None:
            outcome = await _asked(job, metric, sample, lambda call: ask(call, lambda: next(numbers)))
            known.append(Measured(metric, outcome))
    return evaluation_of(evaluator, complete(evaluator.metrics, known))


async def _asked(
    job: Job, metric: Metric, sample: Sample, ask: Callable[[JudgeCall], Awaitable[JsonObject]]
) -> Outcome:
    try:
        return judged(metric, [await ask(call) for call in judge_calls(metric, sample)])
    except LeaseLost:
        raise
    except MetasyncError as error:
        log.warning("judge_failed", job_id=job.id, metric=metric.name, error_type=type(error).__name__)
        return Unscored(f"{type(error).__name__}: {error}")


def evaluation_of(evaluator: Evaluator, measured: tuple[Measured, ...]) -> JsonObject:
    """As a job keeps it: {"score", "outcome", "metrics", "evaluator"}; the score is null where there is none."""
    outcome = combined(measured)
    return {
        "score": outcome.score if isinstance(outcome, Value) else None,
        **_told(outcome),
        "metrics": [_metric(each) for each in measured],
        "evaluator": {"id": evaluator.id, "version": evaluator.version},
    }


def _metric(measured: Measured) -> JsonObject:
    outcome, metric = measured.outcome, measured.metric
    value = outcome.score if isinstance(outcome, Value) else None
    details = {"details": outcome.details} if isinstance(outcome, Value) and outcome.details else {}
    return {
        "name": metric.name,
        "kind": str(metric.kind),
        **_told(outcome),
        "value": value,
        "weight": metric.weight,
        "hard": metric.hard,
        **details,
    }


def _told(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Value):
        return {"outcome": "value", "feedback": outcome.feedback}
    return {"outcome": "unscored" if isinstance(outcome, Unscored) else "error", "reason": outcome.reason}
