"""A model as this process sees it: what runs, what it may have running, whether it is shut, how it does."""

import math
import random
import statistics
import threading
from collections import deque

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
from llm_workers.capacity import HOLD_SECONDS, Bucket, Grant, requests_bucket, tokens_bucket
from llm_workers.corrections import Booked, Corrections
from llm_workers.estimates import Estimator
from llm_workers.lane_terms import Denied, LaneTerms, Reason, Shut
from llm_workers.pace import Breaker, Concurrency, Levels
from utilities.backoff import full_jitter

_LATENCIES_KEPT = 256
_ACTIVE_SECONDS = 30.0
_PROMISE_SECONDS = 1.0
_MOMENT = 0.05
_TEXT_LIMIT = 300
_UNBOUNDED = 1000
_GUESSED = 0.25
_NEWS_OF_ASKING = 0.75
_FIRST_SIZE = 600
"""Tokens of a call, for claims before there was one."""


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
        self._told_until = -math.inf
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
        self.corrections = Corrections()

    def adopt(self, model: Model) -> None:
        """The record as it is now. One that is reached otherwise than before starts anew."""
        if model is self.model:
            return
        with self.lock:
            if _address(model) != _address(self.model):
                self._shut, self._told_until, self._limited_since, self._strikes = None, -math.inf, None, 0
                self.breaker, self.concurrency = Breaker(self.terms.breaker), Concurrency()
                self._levels = Levels()
            self.model = model

    def is_active(self, now: float) -> bool:
        """Whether it was lately used, or is waited for."""
        return self.running > 0 or self.waiting > 0 or self.capped or now - self._used_at < _ACTIVE_SECONDS

    def is_paced(self) -> bool:
        """Whether each call needs an instant at which it may start."""
        limits = self.model.limits
        return limits.requests_per_minute is not None or limits.tokens_per_minute is not None

    def needs_news(self, now: float) -> bool:
        """Whether to ask what others say: now and then where each asking for an instant brings news, and always where
        that renews this replica's part of a concurrency."""
        own = now - self.heard_at < self.terms.lookahead * _NEWS_OF_ASKING
        return not (own and self.is_paced()) or self.model.limits.concurrency is not None

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
        self.corrections.kept(grant.kept)
        with self.lock:
            self.share = grant.concurrency
            self._share_until = asked_at + HOLD_SECONDS * 2 / 3

    def book(self, requests_free_at: float, tokens_free_at: float) -> None:
        """How far the limits are booked, by all replicas."""
        with self.lock:
            self._requests_free_at, self._tokens_free_at = requests_free_at, tokens_free_at

    def promise(self, count: int, now: float) -> None:
        """So many jobs were claimed that will want a place soon; none where it is shut, since they go elsewhere."""
        with self.lock:
            if count == 0 or self._standing_shut(now) is not None:
                return
            self._used_at = now
            self._promised = count + (self._promised if now < self._promised_until else 0)
            self._promised_until = now + _PROMISE_SECONDS

    def expects(self, now: float) -> bool:
        """Whether jobs were claimed that have not come for a place yet."""
        with self.lock:
            return self._promised > 0 and now < self._promised_until

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
            waits = [bucket.half_room(size, now, self._lookahead()) for bucket, size in self._buckets()]
            return max([*waits, self._levels.wait(self._size, now)])

    def answered(
        self, request: CompletionRequest, completion: Completion, *, booked: Booked, started_at: float, now: float
    ) -> None:
        """A call ended well."""
        with self.lock:
            self.running -= 1
            self.latencies.append(now - started_at)
            self.breaker.record(now, failed=False, started_at=started_at)
            self._good()
        self.estimator.learn(request, completion.usage)
        self._true_up(booked, completion.usage)

    def dropped(self) -> None:
        """A call was given up by us, which says nothing of the model."""
        with self.lock:
            self.running -= 1

    def failed(self, error: ProviderError, *, booked: Booked, started_at: float, now: float) -> Shut | None:
        """A call ended in `error`; what is to be announced to other replicas."""
        self._true_up(booked, error.usage, sent=error.sent)
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
        """Whether the others are to be told: not of every moment more that one of a burst of refusals asks for."""
        if self._shut is not None and shut.until <= self._shut.until:
            return False
        self._shut = shut
        tell = shut.until > self._told_until + _MOMENT
        self._told_until = shut.until if tell else self._told_until
        return tell

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

    def levels(self, now: float) -> tuple[Level, ...]:
        """What is left of the model's own limits, of which calls may be booked that are still to come."""
        with self.lock:
            buckets = [bucket for bucket, _ in self._buckets()]
            limits = self.model.limits
            kinds = [(limits.requests_per_minute, "requests"), (limits.tokens_per_minute, "tokens")]
        named = zip(buckets, (kind for limit, kind in kinds if limit is not None), strict=True)
        return tuple(_level(kind, bucket, max(bucket.free_at - now, 0.0)) for bucket, kind in named)

    def _lookahead(self) -> float:
        """Little before a first answer: what is booked at a guess, instants far ahead among it, is kept."""
        guessed = self.model.limits.tokens_per_minute is not None and not self.estimator.seen
        return self.terms.lookahead * (_GUESSED if guessed else 1.0)

    def _starts_ahead(self, now: float) -> float:
        ahead = self._lookahead()
        counts = [float(bucket.starts_within(size, now, ahead)) for bucket, size in self._buckets()]
        return min([*counts, math.floor(min(self._levels.starts_within(self._size, now, ahead), 1e9))])

    def _true_up(self, booked: Booked, usage: Usage | None, *, sent: bool = True) -> None:
        if usage is not None:
            self.corrections.ended(booked, usage.input_tokens + usage.output_tokens)
        elif not sent:
            self.corrections.ended(booked, 0)


def _level(kind: str, bucket: Bucket, seconds: float) -> Level:
    """`seconds` is how far ahead the limit is booked."""
    remaining = max(bucket.limit - math.ceil(seconds * bucket.rate), 0)
    return Level(kind=kind, limit=bucket.limit, remaining=remaining, resets_in=seconds)


def _address(model: Model) -> tuple[str, ...]:
    return model.sdk, model.endpoint, model.deployment, model.key, model.api_version
