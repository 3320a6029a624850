"""A vendor's limits: so many requests and tokens in any window, wherever it begins, and a wait for those who exceed."""

import threading
from collections import deque
from dataclasses import dataclass, field

from tests.support.fake_provider.faults import Fault, fault

TOKENS = 18
"""Of a plain call, as the fake provider counts its usage."""


@dataclass(slots=True)
class Meter:
    """Lets `requests` calls of TOKENS each, and `tokens` of them, through in any `seconds`; refuses the others.

    `penalty` is the Retry-After in seconds, as the vendor thinks fit. `let_through` are the instants of calls that were
    within the limits, `refused` those of the others; both by the clock that `check` is given.
    """

    requests: int
    tokens: int
    seconds: float
    penalty: float
    let_through: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    _recent: deque[float] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, now: float) -> Fault | None:
        """What becomes of a call that comes in now, if it is not to be answered."""
        with self._lock:
            while self._recent and self._recent[0] <= now - self.seconds:
                self._recent.popleft()
            count = len(self._recent) + 1
            if count > self.requests or count * TOKENS > self.tokens:
                self.refused.append(now)
                return fault("rate_limit", ms=self.penalty * 1000)
            self._recent.append(now)
            self.let_through.append(now)
            return None

    def used(self) -> float:
        """The share of what was allowed between the first and the last call that were let through."""
        span = self.let_through[-1] - self.let_through[0]
        allowed = min(self.requests, self.tokens / TOKENS) * span / self.seconds
        return len(self.let_through) / allowed

    def most(self) -> int:
        """The most calls, let through or not, in any window."""
        instants = sorted([*self.let_through, *self.refused])
        first = most = 0
        for place, instant in enumerate(instants):
            while instants[first] <= instant - self.seconds:
                first += 1
            most = max(most, place - first + 1)
        return most
