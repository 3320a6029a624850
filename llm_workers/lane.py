"""A model as this process sees it: what runs, what it may have running, whether it is shut, how it does."""

import math
import random
import statistics
import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from engine.llm import (
    Completion,
    CompletionRequest,
    Level,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    TransientProviderError,
    Usage,
)
from engine.records.values import Model
from llm_workers.capacity import HOLD_SECONDS, Bucket, Grant, Window, requests_bucket, tokens_bucket
from llm_workers.estimates import Estimator
from llm_workers.pace import Breaker, BreakerTerms, Concurrency, Levels
from utilities.backoff import full_jitter

_LATENCIES_KEPT = 256
_ACTIVE_SECONDS = 30.0
_PROMISE_SECONDS = 1.0
_TEXT_LIMIT = 300
_UNBOUNDED = 1000
_CREDIT_CALLS = 4
_FIRST_SIZE = 600
"""Tokens of a call, for claims before there was one."""


class Reason(StrEnum):
    """Why a model takes no call now."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"
    RATE_LIMIT = "rate_limit"
    QUOTA = "quota"
    BREAKER = "breaker"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneTerms:
    """`lookahead` is for how many seconds' worth of calls jobs are claimed in advance; `hold` how long a claimed job
    waits at most before it is given back. The pauses are for when the vendor announces none."""

    window: Window = field(default_factory=Window)
    lookahead: float = 1.0
    hold: float = 2.0
    horizon: float = 3.0
    rate_pause: timedelta = timedelta(seconds=1)
    longest_rate_pause: timedelta = timedelta(minutes=1)
    quota_pause: timedelta = timedelta(minutes=1)
    longest_quota_pause: timedelta = timedelta(minutes=15)
    breaker: BreakerTerms = field(default_factory=BreakerTerms)


@dataclass(frozen=True, slots=True)
class Shut:
    """Until an instant of the steady clock no call is made. `text` is for people."""

    until: float
    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class Denied:
    """No place now; `seconds` is after how long there may be one, 0: as soon as a call ends."""

    seconds: float
    reason: Reason
    text: str


class Lane:
    """Safe to use from several threads. Instants are seconds of the steady clock."""

    def __init__(self, model: Model, terms: LaneTerms, rng: random.Random) -> None:
        self.model = model
        self.terms = terms
        self.running = 0
        self.waiting = 0
        self.capped = False
        self.share: int | None = None
        self.breaker = Breaker(terms.breaker)
        self.concurrency = Concurrency()
        self.estimator = Estimator()
        self.latencies: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self.lock = threading.Lock()
        self._levels = Levels()
        self._rng = rng
        self._shut: Shut | None = None
        self._limited_since: float | None = None
        self._strikes = 0
        self._struck_at = -math.inf
        self._busiest = 0
        self._promised = 0
        self._promised_until = 0.0
        self._used_at = -math.inf
        self._requests_free_at = -math.inf
        self._tokens_free_at = -math.inf
        self._size = _FIRST_SIZE
        self._share_until = -math.inf
        self.heard_at = -math.inf
        self._excess = 0

    def adopt(self, model: Model) -> None:
        """The record as it is now. One that is reached otherwise than before starts anew."""
        if model is self.model:
            return
        with self.lock:
            if _address(model) != _address(self.model):
                self._shut, self._limited_since, self._strikes = None, None, 0
                self.breaker, self.concurrency = Breaker(self.terms.breaker), Concurrency()
                self._levels = Levels()
            self.model = model

    def is_active(self, now: float) -> bool:
        """Whether it was lately used, or is waited for."""
        return self.running > 0 or self.waiting > 0 or self.capped or now - self._used_at < _ACTIVE_SECONDS

    def limited_for(self, now: float) -> float:
        """For how many seconds the vendor has been refusing for its rate limit, without an answer in between."""
        return 0.0 if self._limited_since is None else now - self._limited_since

    def shut_now(self, now: float) -> Shut | None:
        """Why no call may be made, None where one may."""
        with self.lock:
            return self._standing_shut(now)

    def shut(self, shut: Shut) -> bool:
        """Make no call until then; the latest instant wins. Whether this one does, by more than a moment."""
        with self.lock:
            return self._close(shut)

    def arrive(self) -> None:
        """A call wants a place. To be followed by `place` until it has one, or by `turn_away`."""
        with self.lock:
            self.waiting += 1
            self._promised = max(0, self._promised - 1)

    def turn_away(self) -> None:
        """A call that had arrived wants no place any more."""
        with self.lock:
            self.waiting -= 1

    def place(self, units: int, now: float) -> Denied | None:
        """Gives a place to a call of so many tokens that had arrived; None where it has one now."""
        with self.lock:
            self._used_at = now
            denied = self._denied(units, now)
            if denied is None:
                self.waiting -= 1
                self.running += 1
                self._busiest = max(self._busiest, self.running)
                self._levels.take(units, now)
                self._size = max(1, units)
            return denied

    def learn(self, grant: Grant, asked_at: float) -> None:
        """What the shared document says."""
        with self.lock:
            self.share = grant.concurrency
            self._share_until = asked_at + HOLD_SECONDS * 2 / 3

    def book(self, requests_free_at: float, tokens_free_at: float) -> None:
        """How far the limits are booked, by all replicas."""
        with self.lock:
            self._requests_free_at, self._tokens_free_at = requests_free_at, tokens_free_at

    def take_excess(self) -> int:
        """What calls have used over their estimates since the last time, less what others have used under them."""
        with self.lock:
            taken = max(self._excess, 0)
            self._excess -= taken
            return taken

    def give_back(self, excess: int) -> None:
        """It could not be booked."""
        with self.lock:
            self._excess += excess

    def promise(self, count: int, now: float) -> None:
        """So many jobs were claimed that will want a place soon; none where it is shut, since they go elsewhere."""
        with self.lock:
            if count == 0 or self._standing_shut(now) is not None:
                return
            self._used_at = now
            self._promised = count + (self._promised if now < self._promised_until else 0)
            self._promised_until = now + _PROMISE_SECONDS

    def room(self, now: float) -> float:
        """How many more jobs are worth claiming; infinite where nothing is in the way."""
        with self.lock:
            if self._standing_shut(now) is not None:
                return 0
            taken = self.waiting + (self._promised if now < self._promised_until else 0)
            bound = min(self._most_running() - self.running, self._starts_ahead(now)) - taken
            return max(0.0, bound)

    def obstacle(self, now: float) -> tuple[str, float | None]:
        """Why no call could start now, or soon, and for how many seconds; "" where one could. None: until one ends."""
        shut = self.shut_now(now)
        if shut is not None:
            return str(shut.reason), shut.until - now
        if self.free_places(now) <= 0:
            return str(Reason.CONCURRENCY), None
        wait = self.look_again(now)
        return (str(Reason.REQUESTS), wait) if self.terms.hold < wait < math.inf else ("", 0.0)

    def window(self) -> int:
        """How many calls may run at a time; a large number where nothing says so."""
        return int(min(self._most_running(), _UNBOUNDED))

    def bound(self) -> int | None:
        """How many calls may run at a time; None where nothing says so."""
        with self.lock:
            most = self._most_running()
        return None if most == math.inf else int(most)

    def announced_wait(self, now: float) -> float:
        """Seconds until the vendor's own levels let another call through."""
        with self.lock:
            return self._levels.wait(self._size, now)

    def latency(self) -> float | None:
        """The median of the last calls that ended well, in seconds; None where there was none."""
        return statistics.median(self.latencies) if self.latencies else None

    def free_places(self, now: float) -> float:
        """How many more calls may run now; infinite where nothing is in the way."""
        with self.lock:
            return 0.0 if self._standing_shut(now) is not None else self._most_running() - self.running

    def look_again(self, now: float) -> float:
        """Seconds until a claim is worth its while by the passing of time; infinite while that takes a call's end."""
        with self.lock:
            shut = self._standing_shut(now)
            if shut is not None:
                return shut.until - now
            if self.running + self.waiting >= self._most_running():
                return math.inf
            waits = [bucket.half_room(size, now, self.terms.lookahead) for bucket, size in self._buckets()]
            return max([*waits, self._levels.wait(self._size, now)])

    def answered(
        self, request: CompletionRequest, completion: Completion, *, estimate: int, started_at: float, now: float
    ) -> None:
        """A call ended well."""
        with self.lock:
            self.running -= 1
            self.latencies.append(now - started_at)
            self.breaker.record(now, failed=False, started_at=started_at)
            self._good()
        self.estimator.learn(request, completion.usage)
        self._true_up(estimate, completion.usage)

    def dropped(self) -> None:
        """A call was given up by us, or not made after all, which says nothing of the model."""
        with self.lock:
            self.running -= 1

    def failed(self, error: ProviderError, *, estimate: int, started_at: float, now: float) -> Shut | None:
        """A call ended in `error`; what is to be announced to other replicas."""
        self._true_up(estimate, error.usage, sent=error.sent)
        with self.lock:
            running, self.running = self.running, self.running - 1
            shut = self._shut_for(error, started_at, running, now)
            return shut if shut is not None and self._close(shut) else None

    def heard(self, levels: tuple[Level, ...], now: float) -> None:
        """What an answer's headers said."""
        if levels:
            with self.lock:
                for level in levels:
                    self._levels.announced(level, now)

    def cool(self) -> None:
        """Once a second or so: what was busy long ago counts less, unless nothing could be since."""
        with self.lock:
            if self._shut is None:
                self._busiest = max(self.running, int(self._busiest * 0.9))

    def wanted(self) -> int:
        """How much of a shared concurrency is of use here: all of it where jobs wait, else what was used of late."""
        limit = self.model.limits.concurrency or 0
        return limit if self.capped or self.waiting else min(limit, max(self.running, self._busiest))

    def error_rate(self, now: float) -> float:
        with self.lock:
            return self.breaker.error_rate(now)

    def _good(self) -> None:
        self.concurrency.succeeded()
        self._limited_since, self._strikes = None, 0

    def _shut_for(self, error: ProviderError, started_at: float, running: int, now: float) -> Shut | None:
        text = str(error)[:_TEXT_LIMIT]
        if isinstance(error, RateLimited):
            self.concurrency.failed(started_at, running, now)
            self._limited_since = now if self._limited_since is None else self._limited_since
            pause = self._pause(error, started_at, now)
            return None if pause is None else Shut(now + pause, Reason.RATE_LIMIT, text)
        if isinstance(error, QuotaExhausted):
            pause = self._pause(error, started_at, now)
            return None if pause is None else Shut(now + pause, Reason.QUOTA, text)
        if not isinstance(error, TransientProviderError):
            self._good()
            self.breaker.record(now, failed=False, started_at=started_at)
            return None
        self.concurrency.failed(started_at, running, now)
        opened = self.breaker.record(now, failed=True, started_at=started_at)
        return None if opened is None else Shut(now + opened, Reason.BREAKER, text)

    def _pause(self, error: ProviderError, started_at: float, now: float) -> float | None:
        """Seconds: as announced, else more each time. None for one more failure of a burst that has its pause."""
        if error.retry_after is not None:
            return error.retry_after.total_seconds()
        if started_at <= self._struck_at:
            return None
        self._strikes += 1
        self._struck_at = now
        quota, terms = isinstance(error, QuotaExhausted), self.terms
        base, cap = (
            (terms.quota_pause, terms.longest_quota_pause) if quota else (terms.rate_pause, terms.longest_rate_pause)
        )
        pause = full_jitter(self._strikes, base=base, cap=cap, rng=self._rng)
        return max(pause, base / 2).total_seconds()

    def _close(self, shut: Shut) -> bool:
        known = self._shut
        if known is not None and shut.until <= known.until + 0.05:
            return False
        self._shut = shut
        return True

    def _standing_shut(self, now: float) -> Shut | None:
        if self._shut is not None and now >= self._shut.until:
            self._shut = None
            self.breaker.try_again(now)
            self.concurrency.restart(now, self._busiest)
        return self._shut

    def _denied(self, units: int, now: float) -> Denied | None:
        shut = self._standing_shut(now)
        if shut is not None:
            return Denied(shut.until - now, shut.reason, shut.text)
        if self.running >= self._most_running() or not self._has_share(now):
            return Denied(0.0, Reason.CONCURRENCY, f"{self.running} calls are running, which is all it takes now")
        wait = self._levels.wait(units, now)
        if wait > 0:
            return Denied(wait, Reason.REQUESTS, "the provider says that its limit is nearly used up")
        return None

    def _has_share(self, now: float) -> bool:
        """Whether this replica's part of the model's concurrency is certain."""
        return self.model.limits.concurrency is None or now < self._share_until

    def _most_running(self) -> float:
        limit = self.model.limits.concurrency
        shared = math.inf if limit is None else (limit if self.share is None else self.share)
        return min(math.floor(self.concurrency.window) if self.concurrency.window < math.inf else math.inf, shared)

    def _buckets(self) -> list[tuple[Bucket, int]]:
        limits, window = self.model.limits, self.terms.window
        buckets = []
        if limits.requests_per_minute is not None:
            buckets.append((requests_bucket(limits.requests_per_minute, self._requests_free_at, window), 1))
        if limits.tokens_per_minute is not None:
            bucket = tokens_bucket(limits.tokens_per_minute, self._tokens_free_at, window, self._size)
            buckets.append((bucket, min(self._size, limits.tokens_per_minute)))
        return buckets

    def _starts_ahead(self, now: float) -> float:
        ahead = self.terms.lookahead
        counts = [float(bucket.starts_within(size, now, ahead)) for bucket, size in self._buckets()]
        return min([*counts, math.floor(min(self._levels.starts_within(self._size, now, ahead), 1e9))])

    def _true_up(self, estimate: int, usage: Usage | None, *, sent: bool = True) -> None:
        if usage is None and sent:
            return
        used = 0 if usage is None else usage.input_tokens + usage.output_tokens
        with self.lock:
            self._excess = max(self._excess + used - estimate, -_CREDIT_CALLS * max(used, 1))


def _address(model: Model) -> tuple[str, ...]:
    return model.sdk, model.endpoint, model.deployment, model.key, model.api_version
