"""Scoring by the metrics of an evaluator: implements llm_optimizer.subject.Scoring."""

from collections.abc import Sequence

from engine.evaluation.judging import JudgeCall, comparing_calls, judge_calls, judged, winner_of
from engine.evaluation.measures import Measures
from engine.evaluation.values import JUDGES, Measured, Metric, MetricKind, Sample, Value, combined
from engine.llm import JsonObject
from llm_optimizer.rollouts import Role, RolloutSpec
from llm_optimizer.subject import Example, Mark

_CALLS = {MetricKind.LLM_JUDGE: 1, MetricKind.PAIRWISE_JUDGE: 2}


class MetricScoring:
    """Not quite pure: patterns, schemas and expressions are measured in a process of their own, for a bounded time."""

    def __init__(self, metrics: Sequence[Metric], measures: Measures) -> None:
        self._metrics = tuple(metrics)
        self._judges = tuple(metric for metric in metrics if metric.kind in JUDGES)
        self._measures = measures

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

    def asks(self, example: Example, output: str) -> tuple[RolloutSpec, ...]:
        sample = _sample(example, output)
        return tuple(_spec(call) for metric in self._judges for call in judge_calls(metric, sample))

    def mark(self, example: Example, output: str, judged_by: Sequence[JsonObject | None]) -> Mark:
        sample = _sample(example, output)
        measured = self._measures.measured(self._metrics, sample)
        left = list(judged_by)
        for metric in self._judges:
            count = len(judge_calls(metric, sample))
            own, left = left[:count], left[count:]
            measured.append(Measured(metric, judged(metric, own)))
        outcome = combined(measured)
        if isinstance(outcome, Value):
            return Mark(score=outcome.score, feedback=outcome.feedback or "")
        return Mark(score=None, problem=outcome.reason)

    def compares(self, example: Example, first: str, second: str) -> tuple[RolloutSpec, ...]:
        sample = _sample(example, first)
        pairwise = [metric for metric in self._judges if metric.kind is MetricKind.PAIRWISE_JUDGE]
        return tuple(_spec(call) for metric in pairwise[:1] for call in comparing_calls(metric, sample, first, second))

    def winner(self, judged_by: Sequence[JsonObject | None]) -> tuple[str | None, str]:
        return winner_of(judged_by)


def rubric_of(text: str, model: str) -> Metric:
    """The one judge of a run without an evaluator: its evaluation prompt says what a good answer is.

    A prompt that says where the output is to stand ({{output}}) is the judge's own, with nothing around it.
    """
    told = {"prompt": text} if "{{output}}" in text else {"rubric": text}
    return Metric(kind=MetricKind.LLM_JUDGE, name="evaluation", parameters={"model": model, **told})


def _sample(example: Example, output: str) -> Sample:
    return Sample(output=output, input=example.input, expected=example.expected, tags=example.tags)


def _spec(call: JudgeCall) -> RolloutSpec:
    return RolloutSpec(
        role=Role.EVAL,
        model=call.model,
        instructions=call.instructions,
        request_data=call.request_data,
        temperature=call.temperature,
        response_format=call.response_format,
        tag=call.key,
    )
