"""Measures answers by every kind of metric that needs no model."""

import time
from collections.abc import Iterable
from queue import LifoQueue
from typing import Any

import orjson

from engine.evaluation.metrics import HERE, measured_here
from engine.evaluation.parameters import Wrong, wrong_parameter
from engine.evaluation.values import JUDGES, Errored, Measured, Metric, MetricKind, Outcome, Sample, Value
from utilities.apart import Apart, GaveUp

SECONDS = 2.0
"""What one pattern, schema or expression may take for one answer."""

_TIMES_IN_ALL = 3
"""How much longer the patterns, schemas and expressions of one answer may take together than one of them."""

_PROCESSES = 2
"""As many as threads drive evaluations: one with slow metrics does not keep another waiting for each of its answers."""

_WRITTEN: dict[MetricKind, str] = {
    MetricKind.REGEX: "pattern",
    MetricKind.JSON_SCHEMA: "schema",
    MetricKind.EXPRESSION: "expression",
}
"""Kinds that are measured in a process of their own, with the parameter that says why."""


_TOO_LATE = Errored("not measured: the metrics before it took too long")


class Measures:
    """Synchronous, from any thread. A process is started when it is first needed, and lives until `close`."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._processes = [Apart("engine.evaluation.isolated", seconds) for _ in range(_PROCESSES)]
        self._free: LifoQueue[Apart] = LifoQueue()
        for process in self._processes:
            self._free.put(process)

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
        """All of them but the judges. What comes after those that took very long is in error: whoever drives an
        evaluation is not to be kept for minutes by one answer."""
        until = time.monotonic() + _TIMES_IN_ALL * self._seconds
        measured: list[Measured] = []
        for metric in metrics:
            if metric.kind not in JUDGES:
                late = metric.kind not in HERE and time.monotonic() >= until
                measured.append(Measured(metric, _TOO_LATE if late else self.outcome(metric, sample)))
        return measured

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
        """Ends the processes, whatever they are doing."""
        for process in self._processes:
            process.close()

    def _asked(self, *request: Any) -> Any:
        """None where the process gave up."""
        process = self._free.get()
        try:
            return orjson.loads(process(orjson.dumps(request, option=orjson.OPT_NON_STR_KEYS)))
        except GaveUp:
            return None
        finally:
            self._free.put(process)
