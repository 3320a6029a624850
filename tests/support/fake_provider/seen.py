"""What a fake provider saw: every call that reached it, counted whatever became of it."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.fake_provider.wire.port import Asked

_DETAILS = 100_000
_TEXT = 4_096


@dataclass(slots=True)
class SeenCall:
    """`arrived` is time.monotonic() of the machine, `arrived_at` Unix seconds; `ended` is None while in flight.

    `outcome` is answered, error (`status` tells which), reset, or hung_up when the caller went away first.
    """

    model: str
    system: str
    user: str
    attempt_id: str
    wire: str
    arrived: float
    arrived_at: float
    body: dict[str, Any] = field(repr=False)
    ended: float | None = None
    status: int | None = None
    outcome: str | None = None
    turns: tuple[tuple[str, str], ...] = ()
    betas: str = ""


class Seen:
    """Counts since the start or the last `reset`. Safe to read from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.reset()

    def reset(self) -> None:
        with self._changed:
            self.total = 0
            self.in_flight = 0
            self.max_in_flight = 0
            self.hung_up = 0
            self.connections_reset = 0
            self.by_model: Counter[str] = Counter()
            self.by_status: Counter[int] = Counter()
            self.by_attempt: Counter[str] = Counter()
            self.calls: deque[SeenCall] = deque(maxlen=_DETAILS)
            self._changed.notify_all()

    def began(self, asked: Asked, wire: str) -> SeenCall:
        call = SeenCall(
            model=asked.model,
            system=asked.system[:_TEXT],
            user=asked.user[:_TEXT],
            attempt_id=asked.attempt_id,
            wire=wire,
            arrived=time.monotonic(),
            arrived_at=time.time(),
            body=_without_texts(asked.body),
            turns=tuple((role, text[:_TEXT]) for role, text in asked.turns),
            betas=asked.betas,
        )
        with self._changed:
            self.total += 1
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            self.by_model[asked.model] += 1
            self.by_attempt[asked.attempt_id] += 1
            self.calls.append(call)
            self._changed.notify_all()
        return call

    def ended(self, call: SeenCall, outcome: str, status: int | None = None) -> None:
        with self._changed:
            call.ended, call.outcome, call.status = time.monotonic(), outcome, status
            self.in_flight -= 1
            self.hung_up += outcome == "hung_up"
            if status is not None:
                self.by_status[status] += 1
            self._changed.notify_all()

    def connection_was_reset(self) -> None:
        with self._changed:
            self.connections_reset += 1
            self._changed.notify_all()

    def count(self, *, model: str | None = None, containing: str = "") -> int:
        """How many of the (latest 100,000) calls were for `model` and had a text in their prompts."""
        with self._changed:
            return sum(
                model in (None, call.model) and (containing in call.user or containing in call.system)
                for call in self.calls
            )

    def arrivals(self, model: str | None = None) -> list[float]:
        """Instants (time.monotonic) at which calls came in, in order."""
        with self._changed:
            return [call.arrived for call in self.calls if model in (None, call.model)]

    def wait_until(self, holds: Callable[["Seen"], bool], timeout: float = 10.0) -> None:
        """Blocks until `holds(self)`; raises TimeoutError after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: holds(self), timeout):
                raise TimeoutError(f"the fake provider saw {self.total} calls, {self.in_flight} of them in flight")

    def as_document(self) -> dict[str, Any]:
        """What `GET /_seen` answers."""
        with self._changed:
            return {
                "total": self.total,
                "inFlight": self.in_flight,
                "maxInFlight": self.max_in_flight,
                "hungUp": self.hung_up,
                "connectionsReset": self.connections_reset,
                "byModel": dict(self.by_model),
                "byStatus": {str(status): count for status, count in self.by_status.items()},
                "byAttempt": dict(self.by_attempt),
                "calls": [_document(call) for call in self.calls],
            }


def _without_texts(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in ("messages", "contents", "system")}


def _document(call: SeenCall) -> dict[str, Any]:
    return {
        "model": call.model,
        "system": call.system,
        "user": call.user,
        "attemptId": call.attempt_id,
        "wire": call.wire,
        "arrived": call.arrived,
        "arrivedAt": call.arrived_at,
        "ended": call.ended,
        "status": call.status,
        "outcome": call.outcome,
    }
