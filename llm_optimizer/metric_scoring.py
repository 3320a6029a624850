"""Scoring by the metrics of an evaluator: implements llm_optimizer.subject.Scoring."""

from collections.abc import Sequence

from engine.evaluation.judging import comparing_calls, judge_calls, judged, winner_of
from engine.evaluation.measures import Measures
from engine.evaluation.values import (
    JUDGES,
    Measured,
    Metric,
    MetricKind,
    Sample,
    Value,
    combined,
    complete,
    settled_by,
)
from engine.llm import JsonObject
from llm_optimizer.rollouts import RolloutSpec, judge_spec
from llm_optimizer.subject import Example, Mark

_MOST_KNOWN = 1_000
_CALLS = {MetricKind.LLM_JUDGE: 1, MetricKind.PAIRWISE_JUDGE: 2}


class MetricScoring:
    """Not quite pure: patterns, schemas and expressions are measured in a process of their own, for a bounded time."""

    def __init__(self, metrics: Sequence[Metric], measures: Measures) -> None:
        self._metrics = tuple(metrics)
        self._judges = tuple(metric for metric in metrics if metric.kind in JUDGES)
        self._measures = measures
        self._known: dict[tuple[str, str], Sequence[Measured]] = {}

    @property
    def calls(self) -> int:
        return sum(_CALLS[metric.kind] for metric in self._judges)

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(metric.parameters["model"] for metric in self._judges for _ in range(_CALLS[metric.kind]))

    @property
    def pairwise(self) -> bool:
        return all(metric.kind is MetricKind.PAIRWISE_JUDGE for metric in self._metrics)

    @property
    def can_compare(self) -> bool:
        return any(metric.kind is MetricKind.PAIRWISE_JUDGE for metric in self._judges)

    def settled(self, example: Example, output: str) -> bool:
        return bool(self._judges) and settled_by(self._measured(example, output)) is not None

    def asks(self, example: Example, output: str) -> tuple[RolloutSpec, ...]:
        sample = _sample(example, output)
        return tuple(judge_spec(call, call.key) for metric in self._judges for call in judge_calls(metric, sample))

    def mark(self, example: Example, output: str, judged_by: Sequence[JsonObject | None]) -> Mark:
        sample, measured = _sample(example, output), list(self._measured(example, output))
        left = list(judged_by)
        for metric in () if settled_by(measured) is not None else self._judges:
            count = len(judge_calls(metric, sample))
            own, left = left[:count], left[count:]
            measured.append(Measured(metric, judged(metric, own)))
        outcome = combined(complete(self._metrics, measured))
        if isinstance(outcome, Value):
            return Mark(score=outcome.score, feedback=outcome.feedback or "")
        return Mark(score=None, problem=outcome.reason)

    def compares(self, example: Example, first: str, second: str) -> tuple[RolloutSpec, ...]:
        sample = _sample(example, first)
        pairwise = [metric for metric in self._judges if metric.kind is MetricKind.PAIRWISE_JUDGE]
        calls = (call for metric in pairwise[:1] for call in comparing_calls(metric, sample, first, second))
        return tuple(judge_spec(call, call.key) for call in calls)

    def winner(self, judged_by: Sequence[JsonObject | None]) -> tuple[str | None, str]:
        return winner_of(judged_by)

    def _measured(self, example: Example, output: str) -> Sequence[Measured]:
        """Remembered for a while: an answer is looked at before its judges are asked, and when they have answered."""
        key = (example.id, output)
        if key not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = self._measures.measured(self._metrics, _sample(example, output))
        return self._known[key]


def rubric_of(text: str, model: str) -> Metric:
    """The one judge of a run without an evaluator: its evaluation prompt says what a good answer is.

    A prompt that says where the output is to stand ({{output}}) is the judge's own, with nothing around it.
    """
    told = {"prompt": text} if "{{output}}" in text else {"rubric": text}
    return Metric(kind=MetricKind.LLM_JUDGE, name="evaluation", parameters={"model": model, **told})


def _sample(example: Example, output: str) -> Sample:
    return Sample(output=output, input=example.input, expected=example.expected, tags=example.tags)
