"""Measures answers by every kind of metric that needs no model."""

from collections.abc import Iterable
from typing import Any

import orjson

from engine.evaluation.metrics import HERE, measured_here
from engine.evaluation.parameters import Wrong, wrong_parameter
from engine.evaluation.values import JUDGES, Errored, Measured, Metric, MetricKind, Outcome, Sample, Value
from utilities.apart import Apart, GaveUp

SECONDS = 2.0
"""What one pattern, schema or expression may take for one answer."""

_WRITTEN: dict[MetricKind, str] = {
    MetricKind.REGEX: "pattern",
    MetricKind.JSON_SCHEMA: "schema",
    MetricKind.EXPRESSION: "expression",
}
"""Kinds that are measured in a process of their own, with the parameter that says why."""


class Measures:
    """Synchronous, from any thread. The process is started when it is first needed, and lives until `close`."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._apart = Apart("engine.evaluation.isolated", seconds)

    def wrong(self, metric: Metric) -> Wrong | None:
        """What is wrong with a metric's parameters, if anything is."""
        wrong = wrong_parameter(metric)
        written = _WRITTEN.get(metric.kind)
        if wrong is not None or written is None:
            return wrong
        answer = self._asked("check", metric.kind, metric.parameters)
        problem = f"cannot be checked within {self._seconds:g} seconds" if answer is None else answer["problem"]
        return None if problem is None else Wrong(written, problem)

    def measured(self, metrics: Iterable[Metric], sample: Sample) -> list[Measured]:
        """All of them but the judges."""
        return [Measured(metric, self.outcome(metric, sample)) for metric in metrics if metric.kind not in JUDGES]

    def outcome(self, metric: Metric, sample: Sample) -> Outcome:
        """Of one metric, which is no judge."""
        if metric.kind in HERE:
            return measured_here(metric, sample)
        held = {
            "output": sample.output,
            "input": sample.input,
            "expected": sample.expected,
            "tags": sample.tags,
        }
        answer = self._asked("measure", metric.kind, metric.parameters, held)
        if answer is None:
            return Errored(f"took longer than {self._seconds:g} seconds, or too much memory")
        if "error" in answer:
            return Errored(answer["error"])
        return Value(score=answer["score"], feedback=answer["feedback"])

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        self._apart.close()

    def _asked(self, *request: Any) -> Any:
        """None where the process gave up."""
        try:
            return orjson.loads(self._apart(orjson.dumps(request, option=orjson.OPT_NON_STR_KEYS)))
        except GaveUp:
            return None
