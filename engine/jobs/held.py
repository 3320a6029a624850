"""A job held under a lease in this process: what its handler sees of it, and how its lease is kept."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from engine.errors import CallsUsedUp, LeaseLost, StorageError, StorageUnavailable
from engine.jobs.job import Attempt, Call, Job
from engine.jobs.outcome import Completed, DeadLettered, Outcome, Released, Retried
from engine.jobs.queue import Hold, JobQueue
from engine.jobs.states import JobState
from utilities.clock import Clock
from utilities.hop import Hop

_OUTAGE_PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """`length` of a lease; `margin` is kept free at its end for clocks that disagree and for the call's first step."""

    length: timedelta
    margin: timedelta

    @classmethod
    def of(cls, length: timedelta) -> "LeaseTerms":
        return cls(length=length, margin=length / 10)

    def good_until(self, asked_at: float) -> float:
        """Until when, on the steady clock, a lease asked for at `asked_at` can be relied on."""
        return asked_at + (self.length - self.margin).total_seconds()


class Held:
    """Implements engine.jobs.handler.Assignment. Lives on one event loop.

    `good_until` and `overdue_at` are instants of the steady clock: when the lease can have run out, and from when it
    is not extended any more because the attempt should have ended long ago.
    """

    def __init__(
        self, job: Job, *, queue: JobQueue, hop: Hop, clock: Clock, good_until: float, overdue_at: float
    ) -> None:
        self.job = job
        self.good_until = good_until
        self.overdue_at = overdue_at
        self.lost = False
        self.releasing = False
        self.handling: asyncio.Task[None] | None = None
        self._queue = queue
        self._hop = hop
        self._clock = clock
        self._owner = job.lease.owner if job.lease is not None else ""
        self._started_at = clock.now()
        self._calls: list[Call] = []

    @property
    def hold(self) -> Hold:
        return Hold(self.job.id, self.job.token)

    @property
    def has_calls(self) -> bool:
        return bool(self._calls)

    def guard(self) -> None:
        self._guard_lease()
        if not self.job.may_call(self._calls):
            raise CallsUsedUp(f"job {self.job.id} has made as many calls as it may: {self.job.most_calls}")

    def _guard_lease(self) -> None:
        if self.lost or self._clock.monotonic() >= self.good_until:
            raise LeaseLost(f"the lease of job {self.job.id} is no longer certain")

    async def reload(self) -> Job:
        job = await self._read()
        if job is None or job.token != self.job.token or job.status is not JobState.PROCESSING:
            raise LeaseLost(f"job {self.job.id} is no longer held under token {self.job.token}")
        self.job = job
        return job

    async def _read(self) -> Job | None:
        """Waits for the database while the lease is certain: what the attempt has paid for would be lost with it."""
        while True:
            try:
                return await self._hop(self._queue.get, self.job.id)
            except StorageUnavailable:
                self._guard_lease()
                await asyncio.sleep(_OUTAGE_PAUSE_SECONDS)

    def record(self, call: Call) -> None:
        self._calls.append(call)

    def lose(self) -> None:
        """The job was taken away: its call is dropped."""
        self.lost = True
        self._drop()

    def release(self) -> None:
        """Give the job back uncharged: its call is dropped."""
        self.releasing = True
        self._drop()

    def _drop(self) -> None:
        if self.handling is not None:
            self.handling.cancel()

    def attempt(self, outcome: Outcome, now: datetime) -> Attempt:
        """The ledger's entry for an attempt that ends in `outcome`."""
        failure = outcome.failure if isinstance(outcome, (Retried, DeadLettered)) else None
        return Attempt(
            token=self.job.token,
            owner=self._owner,
            started_at=self._started_at,
            ended_at=now,
            outcome=_word(outcome),
            charged=failure is not None and failure.attempts > self.job.attempts,
            error_type=failure.error_type if failure is not None else None,
            error_message=failure.message if failure is not None else None,
            calls=tuple(self._calls),
        )

    def late_attempt(self, now: datetime) -> Attempt:
        """The ledger's entry for an attempt whose job was taken away meanwhile."""
        ran_out = self._clock.monotonic() >= self.good_until
        return Attempt(
            token=self.job.token,
            owner=self._owner,
            started_at=self._started_at,
            ended_at=now,
            outcome="lease_lost" if ran_out else "canceled",
            calls=tuple(self._calls),
        )


def _word(outcome: Outcome) -> str:
    if isinstance(outcome, Completed):
        return "completed"
    if isinstance(outcome, Retried):
        return "retried"
    if isinstance(outcome, DeadLettered):
        return "dead_lettered"
    return "released" if isinstance(outcome, Released) else "lease_lost"


class Heartbeat:
    """Extends the lease of every job held on one loop: each for itself, several in one write.

    A lease is extended when a third of it has passed. An outage is waited out; whether a further call may start is
    up to `Held.guard`, which goes by the steady clock.
    """

    def __init__(self, queue: JobQueue, hop: Hop, clock: Clock, terms: LeaseTerms) -> None:
        self._queue = queue
        self._hop = hop
        self._clock = clock
        self._terms = terms
        self._held: dict[Hold, Held] = {}

    def add(self, held: Held) -> None:
        self._held[held.hold] = held

    def remove(self, held: Held) -> None:
        self._held.pop(held.hold, None)

    async def run(self) -> None:
        """Beats until cancelled."""
        pause = self._terms.length.total_seconds() / 12
        while True:
            await asyncio.sleep(pause)
            try:
                await self.beat()
            except StorageError:
                continue

    async def beat(self) -> None:
        """Extend what is due; jobs that are no longer held are told so. Raises StorageError on an outage."""
        asked_at = self._clock.monotonic()
        latest = self._terms.good_until(asked_at) - self._terms.length.total_seconds() / 3
        due = [held for held in self._held.values() if held.good_until <= latest and asked_at < held.overdue_at]
        if not due:
            return
        now = self._clock.now()
        kept = await self._hop(self._queue.extend, [held.hold for held in due], now + self._terms.length, now)
        for held in due:
            if held.job.id in kept:
                held.good_until = self._terms.good_until(asked_at)
            elif held.hold in self._held:
                held.lose()
