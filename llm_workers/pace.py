"""How fast a model is asked, learned from how it answers: concurrency, circuit breaker, announced levels.

No clock here: instants are seconds of the steady clock, and arguments.
"""

import math
from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from engine.llm import Level

_STEPS_TO_PEAK = 16
_AFTER_PAUSE = 1.0


class Concurrency:
    """How many calls may run at a time: additive increase, multiplicative decrease (Chiu and Jain, 1989).

    Unbounded until a call fails. Then half of what was running; a burst of failures counts once. Up again by one for
    each answer until half of the former is reached (slow start, RFC 5681), from there by a sixteenth of the former
    peak for each round of answers, until the peak is reached and nothing bounds any more.
    """

    def __init__(self) -> None:
        self.window = math.inf
        self._peak = 0.0
        self._half = math.inf
        self._cut_at = -math.inf

    def succeeded(self) -> None:
        if self.window == math.inf:
            return
        if self.window < self._half:
            self.window += 1
        else:
            self.window += max(1.0, self._peak / _STEPS_TO_PEAK) / self.window
        if self.window >= self._peak:
            self.window = self._half = math.inf

    def failed(self, started_at: float, running: int, now: float) -> None:
        """`running` calls were under way, this one included. What had started before the last cut says nothing new."""
        if started_at <= self._cut_at:
            return
        self._peak = max(float(running), self._peak if self.window < math.inf else 0.0, 2.0)
        self._half = max(1.0, min(self.window, float(running)) / 2)
        self.window = self._half
        self._cut_at = now

    def restart(self, now: float, busiest: int) -> None:
        """After a pause: one call at first, then as many as have been answered. `busiest` ran before the pause."""
        self._peak = max(self._peak if self.window < math.inf else 0.0, float(busiest), 2.0)
        self._half = min(self._half, self._peak / 2)
        self.window = _AFTER_PAUSE
        self._cut_at = now


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerTerms:
    """Opens when `share` of at least `least` calls of the last `seconds` failed; for `pause` seconds, doubled each time
    a probe fails, up to `longest`. Closes after `probes` answers in a row."""

    seconds: float = 30.0
    least: int = 20
    share: float = 0.5
    pause: float = 5.0
    longest: float = 60.0
    probes: int = 3


class Breaker:
    """A circuit breaker over a sliding window (Nygard, Release It!, 2nd edition, chapter 5)."""

    def __init__(self, terms: BreakerTerms | None = None) -> None:
        self.state = BreakerState.CLOSED
        self._terms = terms or BreakerTerms()
        self._calls: deque[tuple[float, bool]] = deque()
        self._failed = 0
        self._openings = 0
        self._good_probes = 0
        self._probing_since = -math.inf
        self._told = self.state

    def news(self) -> BreakerState | None:
        """The state, where it is another one than when this was asked last."""
        if self.state is self._told:
            return None
        self._told = self.state
        return self.state

    def error_rate(self, now: float) -> float:
        """The share of the window's calls that failed; 0 without calls."""
        self._forget(now)
        return self._failed / len(self._calls) if self._calls else 0.0

    def record(self, now: float, *, failed: bool, started_at: float = math.inf) -> float | None:
        """Seconds for which the breaker has just opened, None where it has not.

        A call that had `started_at` an instant before the probes did is none: it says how the model was.
        """
        self._calls.append((now, failed))
        self._failed += failed
        self._forget(now)
        if self.state is BreakerState.HALF_OPEN:
            return self._probed(failed=failed) if started_at >= self._probing_since else None
        if self.state is BreakerState.OPEN or not failed:
            return None
        if len(self._calls) < self._terms.least or self._failed < self._terms.share * len(self._calls):
            return None
        return self._open()

    def try_again(self, now: float) -> None:
        """The pause is over: from now on calls are probes."""
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.HALF_OPEN
            self._probing_since = now
            self._good_probes = 0

    def _probed(self, *, failed: bool) -> float | None:
        if failed:
            return self._open()
        self._good_probes += 1
        if self._good_probes >= self._terms.probes:
            self.state = BreakerState.CLOSED
            self._openings = 0
            self._calls.clear()
            self._failed = 0
        return None

    def _open(self) -> float:
        pause = min(self._terms.pause * 2.0**self._openings, self._terms.longest)
        self.state = BreakerState.OPEN
        self._openings += 1
        return pause

    def _forget(self, now: float) -> None:
        while self._calls and self._calls[0][0] < now - self._terms.seconds:
            _, failed = self._calls.popleft()
            self._failed -= failed


class Levels:
    """What the vendor says is left of its limits, and how fast that fills up again.

    `resets_in` is the time until all of the limit is there again, so that the missing part over it is the rate.
    Source: OpenAI's guide to rate limits and Anthropic's API reference, on their rate-limit headers.
    """

    def __init__(self) -> None:
        self._left: dict[str, _Left] = {}

    def announced(self, level: Level, now: float) -> None:
        missing = max(level.limit - level.remaining, 0)
        rate = missing / level.resets_in if level.resets_in > 0 else math.inf
        self._left[level.kind] = _Left(float(level.remaining), rate, now, now + level.resets_in)

    def wait(self, tokens: int, now: float) -> float:
        """Seconds until a call of so many tokens is likely to be let through; 0 where nothing speaks against it."""
        return max((left.wait(_units(kind, tokens), now) for kind, left in self._left.items()), default=0.0)

    def take(self, tokens: int, now: float) -> None:
        """A call goes out."""
        for kind, left in self._left.items():
            left.take(_units(kind, tokens), now)

    def starts_within(self, tokens: int, now: float, seconds: float) -> float:
        """How many calls may start within `seconds`; infinite where nothing is announced."""
        counts = (left.level(now + seconds) / _units(kind, tokens) for kind, left in self._left.items())
        return max(min(counts, default=math.inf), 0.0)


def _units(kind: str, tokens: int) -> float:
    return float(max(tokens, 1)) if kind == "tokens" else 1.0


@dataclass(slots=True)
class _Left:
    """`left` units at `at`, `rate` more each second; after `full_at` it bounds nothing."""

    left: float
    rate: float
    at: float
    full_at: float

    def level(self, now: float) -> float:
        return math.inf if now >= self.full_at else self.left + (now - self.at) * self.rate

    def wait(self, units: float, now: float) -> float:
        missing = units - self.level(now)
        if missing <= 0:
            return 0.0
        until_full = self.full_at - now
        return until_full if self.rate <= 0 else min(missing / self.rate, until_full)

    def take(self, units: float, now: float) -> None:
        if now < self.full_at:
            self.left = max(self.level(now) - units, -units)
            self.at = now
