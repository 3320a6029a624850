"""What becomes of a call on the ledger, however it ends."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from engine.jobs.job import Call
from engine.llm import Completion, ProviderError, Usage, cost_of_usage
from engine.records.values import Model
from utilities.clock import Clock


class Ledger(Protocol):
    """Where calls are put down: a job's attempt, or a stream."""

    def record(self, call: Call) -> None: ...


class Booking:
    """One call to be. From `begin` on it ends on the ledger; before, nothing has happened."""

    def __init__(self, work: Ledger, name: str, model: Model, clock: Clock) -> None:
        self.completion: Completion | None = None
        self._work = work
        self._name = name
        self._model = model
        self._clock = clock
        self._started_at: datetime | None = None
        self._began = 0.0

    def begin(self) -> None:
        self._started_at, self._began = self._clock.now(), self._clock.monotonic()

    def end_well(self, completion: Completion) -> Call | None:
        """The call as it was recorded; None where there was none."""
        return self._record(_good_ending(completion))

    def end_badly(self, error: BaseException, guess: Usage | None = None) -> Call | None:
        """`guess` is what the call took where nobody tells: for one that was cut off in its answer."""
        ending = _bad_ending(error, self.completion)
        return self._record(replace(ending, usage=guess) if ending.usage is None else ending)

    def _record(self, ending: "_Ending") -> Call | None:
        if self._started_at is None:
            return None
        duration = self._clock.monotonic() - self._began
        call = _call(self._name, self._model, self._started_at, duration, ending)
        self._work.record(call)
        return call


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ending:
    """How a call ended; `usage` is None where the vendor never told."""

    outcome: str
    usage: Usage | None = None
    error_type: str | None = None
    request_id: str | None = None


def _good_ending(completion: Completion) -> _Ending:
    return _Ending(outcome="ok", usage=completion.usage, request_id=completion.request_id)


def _bad_ending(error: BaseException, completion: Completion | None) -> _Ending:
    """`unknown` where a request was sent and no answer came that can be read: it may have been charged."""
    name = type(error).__name__
    if completion is not None:
        return _Ending(outcome="error", usage=completion.usage, error_type=name, request_id=completion.request_id)
    if not isinstance(error, ProviderError):
        return _Ending(outcome="unknown", error_type=name)
    refused = error.status is not None and not 200 <= error.status < 300
    told = refused or error.usage is not None or not error.sent
    return _Ending(
        outcome="error" if told else "unknown", usage=error.usage, error_type=name, request_id=error.request_id
    )


def _call(name: str, model: Model, started_at: datetime, duration: float, ending: _Ending) -> Call:
    usage = ending.usage
    cost = None if usage is None else cost_of_usage(usage, model.prices)
    return Call(
        step=name,
        model=model.name,
        started_at=started_at,
        duration=duration,
        outcome=ending.outcome,
        input_tokens=None if usage is None else usage.input_tokens,
        output_tokens=None if usage is None else usage.output_tokens,
        cached_input_tokens=None if usage is None else usage.cached_input_tokens,
        reasoning_tokens=None if usage is None else usage.reasoning_tokens,
        input_cost=None if cost is None else cost.input,
        output_cost=None if cost is None else cost.output,
        currency=None if cost is None else cost.currency,
        error_type=ending.error_type,
        request_id=ending.request_id,
    )
