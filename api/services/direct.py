"""Jobs whose callers wait for their end: stored like all others, and run here at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from api.core.gate import Gate
from api.services.explain import Explainer, Explanation
from api.services.idempotency import RequestKey
from api.services.job_drafts import JobDraft, Maker
from api.services.job_watch import JobWatch, Watched
from api.services.jobs_intake import JobIntake
from engine.errors import NotFound, StorageUnavailable, TooManyAtOnce
from engine.jobs.changes import after_event
from engine.jobs.job import Job
from engine.jobs.queue import JobQueue
from engine.jobs.signals import JobSignals
from engine.jobs.states import Event, JobState
from engine.records.control import DirectRuns
from utilities.clock import Clock

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0
_OUTAGE_PAUSE_SECONDS = 0.5
_NOBODY_KNOWS = "It is stored, and what it waits for cannot be told: the database is not available at the moment."
_DRAIN_SECONDS = 3.0
"""Of a process that ends: less than its HTTP server gives the requests under way."""


@dataclass(frozen=True, slots=True)
class Patience:
    """For how many `seconds` a caller waits, and whether also `for_money`: for a budget that is used up to be raised.

    `gone` returns when he has hung up.
    """

    seconds: float
    gone: Callable[[], Awaitable[object]]
    for_money: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """`waits` is set where the job has not ended and goes on as an ordinary one: it says what for.

    `replayed` tells that an earlier request with the same key made the job.
    """

    job: Job
    waits: Explanation | None
    replayed: bool


class DirectService:
    """For one event loop, which it never blocks.

    There is no second way to run a job: it is stored under a lease as a worker's claim leaves it, and worked on by the
    same loops. Put back, it is claimed again when it is due, by whoever is faster, for as long as the caller waits.
    When he does so no longer the job goes on: what was called is paid for.

    At most `runs.most` callers wait, and as many jobs run, at a time.
    """

    def __init__(
        self,
        runs: DirectRuns,
        intake: JobIntake,
        explainer: Explainer,
        gate: Gate,
        *,
        queue: JobQueue,
        signals: JobSignals,
        clock: Clock,
    ) -> None:
        self._runs = runs
        self._intake = intake
        self._explainer = explainer
        self._queue = queue
        self._signals = signals
        self._watch = JobWatch(signals)
        self._clock = clock
        self._gate = gate
        self._callers = 0

    async def run(self, draft: JobDraft, maker: Maker, key: RequestKey | None, patience: Patience) -> Answered:
        """The job as it is when it has ended, or when patience is at an end or it is certain that it will be.

        With 0 seconds it is an ordinary job from the start. Raises TooManyAtOnce, and stores nothing; NotFound where
        the job was deleted; else as JobIntake does.
        """
        give_up = self._clock.monotonic() + patience.seconds
        if patience.seconds <= 0:
            accepted = await self._intake.one(draft, maker, key, hop=self._gate, insert=self._gate.insert)
            job = await self._now(accepted.jobs[0].id) if accepted.replayed else accepted.jobs[0]
            return await self._answered(job, accepted.replayed)
        with self._place():
            asked_at = self._clock.monotonic()
            accepted = await self._intake.untold(
                draft, maker, key, hop=self._gate, insert=self._gate.insert, stored_as=self._claimed_if_it_may
            )
            with self._watch.on(accepted.jobs[0].id) as watched:
                job = await self._now(accepted.jobs[0].id) if accepted.replayed else accepted.jobs[0]
                if job.lease is not None and not accepted.replayed:
                    self._runs.run(job, asked_at)
                async with _heeding(patience, watched):
                    job = await self._ended(job, watched, give_up, for_money=patience.for_money)
        return await self._answered(job, accepted.replayed)

    @contextmanager
    def _place(self) -> Iterator[None]:
        most = self._runs.most
        if max(self._callers, self._runs.in_flight) >= most:
            raise TooManyAtOnce(f"{most} direct calls are under way already, and no more are taken at a time")
        self._callers += 1
        try:
            yield
        finally:
            self._callers -= 1

    async def _answered(self, job: Job, replayed: bool) -> Answered:
        if has_ended(job):
            return Answered(job=job, waits=None, replayed=replayed)
        if job.status is JobState.PENDING:
            self._signals.ready([job])
        return Answered(job=job, waits=await self._explained(job), replayed=replayed)

    async def _explained(self, job: Job) -> Explanation:
        try:
            return await self._gate(self._explainer.explain, job)
        except StorageUnavailable:
            return Explanation(job=job, reason="database_away", text=_NOBODY_KNOWS)

    async def _ended(self, job: Job, watched: Watched, give_up: float, *, for_money: bool) -> Job:
        """The job when it has ended, or when nobody is going to wait for it any longer."""
        pause = _FIRST_PAUSE_SECONDS
        while not has_ended(job):
            now = self._clock.now()
            if self._runs.draining:
                give_up = min(give_up, self._clock.monotonic() + _DRAIN_SECONDS)
            left = give_up - self._clock.monotonic()
            if left <= 0 or watched.left or self._is_late(job, now, left):
                break
            if not for_money and await self._is_broke(job):
                break
            if not self._may_start(job, now):
                told = await watched.within(min(left, pause, _until_due(job, now) or pause))
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                if not told and self._is_ours(job, now):
                    continue
            job = await self._moved(job, watched)
        return job

    async def _moved(self, job: Job, watched: Watched) -> Job:
        """The job claimed and running here where it may be, else as it is now.

        An outage is waited out: without its answer the caller would not know where the job is that he has paid for.
        """
        try:
            started = await self._gate(self._started, job) if self._may_start(job, self._clock.now()) else None
            return started or await self._now(job.id)
        except StorageUnavailable:
            await asyncio.sleep(_OUTAGE_PAUSE_SECONDS)
            watched.tell()
            return job

    def _is_late(self, job: Job, now: datetime, left: float) -> bool:
        """Whether the job waits for longer than its caller will, or here for nobody."""
        return job.status is JobState.PENDING and (self._runs.draining or _until_due(job, now) > left)

    async def _is_broke(self, job: Job) -> bool:
        """Whether its client's budget is used up, rather than held for a moment by calls under way."""
        if self._runs.has_money(job.client_id):
            return False
        return (await self._explained(job)).reason == "budget_exhausted"

    def _may_start(self, job: Job, now: datetime) -> bool:
        ready = job.status is JobState.PENDING and not _until_due(job, now)
        return ready and self._runs.has_money(job.client_id)

    def _is_ours(self, job: Job, now: datetime) -> bool:
        """Whether this process works on the job under a lease, so that its end will be told."""
        lease = job.lease
        return lease is not None and lease.owner == self._runs.lease(now).owner and lease.expires_at > now

    def _claimed_if_it_may(self, job: Job) -> Job:
        """A new job as it is stored: claimed for this process already where it may start, which spares a write."""
        now = self._clock.now()
        return self._claimed(job, now) if self._may_start(job, now) and not self._runs.draining else job

    def _claimed(self, job: Job, now: datetime) -> Job:
        claimed = after_event(job, Event.CLAIM, now, by="worker", lease=self._runs.lease(now))
        return replace(claimed, due_at=None)

    def _started(self, job: Job) -> Job | None:
        """The job claimed and handed over; None where somebody else has changed it. From a thread that may block."""
        asked_at, now = self._clock.monotonic(), self._clock.now()
        claimed = self._claimed(job, now)
        [written] = self._queue.compare_and_set([claimed], now)
        if not written:
            return None
        claimed = replace(claimed, revision=job.revision + 1)
        self._runs.run(claimed, asked_at)
        return claimed

    async def _now(self, job_id: str) -> Job:
        job = await self._gate(self._queue.get, job_id)
        if job is None:
            raise NotFound("Job", job_id)
        return job


def has_ended(job: Job) -> bool:
    """Whether there is nothing to wait for: a result, an error, or a cancellation."""
    return job.status not in (JobState.PENDING, JobState.PROCESSING)


def _until_due(job: Job, now: datetime) -> float:
    """Seconds that a waiting job sleeps; 0 where time is not what it waits for."""
    if job.status is not JobState.PENDING or job.due_at is None:
        return 0.0
    return max(0.0, (job.due_at - now).total_seconds())


@asynccontextmanager
async def _heeding(patience: Patience, watched: Watched) -> AsyncIterator[None]:
    """Within the block, whoever waits leaves when the caller has hung up."""
    leaving = asyncio.ensure_future(patience.gone())
    leaving.add_done_callback(lambda _: watched.leave())
    try:
        yield
    finally:
        leaving.cancel()
