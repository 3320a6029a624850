"""A vendor's limits: so many requests and tokens in any window, wherever it begins, and a wait for those who exceed."""

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.support.fake_provider.faults import Fault, fault

TOKENS = 18
"""Of a plain call, as the fake provider counts its usage."""


class Metered(NamedTuple):
    """A call that came in `at`, by the clock that `Meter.check` is given. `within` the limits, or refused."""

    at: float
    tokens: int
    within: bool


@dataclass(slots=True)
class Meter:
    """Lets `requests` calls, and `tokens` of them, through in any `seconds`; refuses the others.

    `penalty` is the Retry-After in seconds, as the vendor thinks fit. `calls` are all that came in, in order.
    """

    requests: int
    tokens: int
    seconds: float
    penalty: float
    calls: list[Metered] = field(default_factory=list)
    _recent: deque[Metered] = field(default_factory=deque)
    _recent_tokens: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, now: float, tokens: int = TOKENS) -> Fault | None:
        """What becomes of a call of so many tokens that comes in now, if it is not to be answered."""
        with self._lock:
            while self._recent and self._recent[0].at <= now - self.seconds:
                self._recent_tokens -= self._recent.popleft().tokens
            within = len(self._recent) < self.requests and self._recent_tokens + tokens <= self.tokens
            call = Metered(now, tokens, within)
            self.calls.append(call)
            if not within:
                return fault("rate_limit", ms=self.penalty * 1000)
            self._recent.append(call)
            self._recent_tokens += tokens
            return None

    @property
    def let_through(self) -> list[Metered]:
        return [call for call in self.calls if call.within]

    @property
    def refused(self) -> list[Metered]:
        return [call for call in self.calls if not call.within]

    def used(self) -> float:
        """The share of what was allowed between the first and the last call that were let through, see `share`."""
        return self.share(self.let_through)

    def share(self, calls: Sequence[Metered]) -> float:
        """What these calls, in order, used of the limit that was used more, requests or tokens, while they came in."""
        windows = (calls[-1].at - calls[0].at) / self.seconds
        tokens = sum(call.tokens for call in calls)
        return max(len(calls) / self.requests, tokens / self.tokens) / windows

    def most(self) -> int:
        """The most calls, let through or not, in any window."""
        return self._most((call.at, 1) for call in self.calls)

    def most_tokens(self) -> int:
        """The most tokens of calls, let through or not, in any window."""
        return self._most((call.at, call.tokens) for call in self.calls)

    def _most(self, sizes: Iterable[tuple[float, int]]) -> int:
        recent: deque[tuple[float, int]] = deque()
        held = most = 0
        for at, size in sorted(sizes):
            recent.append((at, size))
            held += size
            while recent[0][0] <= at - self.seconds:
                held -= recent.popleft()[1]
            most = max(most, held)
        return most

    def as_document(self) -> dict[str, Any]:
        """What `GET /_meter` answers."""
        with self._lock:
            calls = [list(call) for call in self.calls]
        terms = {name: getattr(self, name) for name in ("requests", "tokens", "seconds", "penalty")}
        return {**terms, "calls": calls}


def meter_of(document: Mapping[str, Any]) -> Meter:
    """The inverse of `as_document`; without `calls` a meter for what is to come."""
    terms = {name: document[name] for name in ("requests", "tokens", "seconds", "penalty")}
    return Meter(**terms, calls=[Metered(*call) for call in document.get("calls", ())])
