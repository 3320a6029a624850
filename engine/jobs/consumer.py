"""The loop that works: claim, handle, settle. The only broad `except` of the engine is here."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

import structlog

from engine.errors import LeaseLost, MetasyncError, StorageError
from engine.jobs.claimer import Claimer, Wish
from engine.jobs.handler import JobHandler
from engine.jobs.held import Heartbeat, Held, LeaseTerms
from engine.jobs.job import Job
from engine.jobs.matching import mismatches
from engine.jobs.outcome import Completed, DeadLettered, Outcome, Released, Retried, Settlement
from engine.jobs.queue import ClaimFilter, Hold, JobQueue
from engine.jobs.retry import HELD_BACK, RetryPolicy, failure_of
from engine.jobs.rooms import Rooms, Unrestricted
from engine.jobs.settler import Settler
from engine.llm import ProviderTimeout
from utilities.backoff import full_jitter
from utilities.clock import Clock
from utilities.hop import Hop

_FIRST_IDLE_SECONDS = 0.25
_GATHER_SECONDS = 0.01
_RAMP_SECONDS = 0.002
_STARTS_A_STEP = 4
_WITHOUT_RAMP = 16
_LOOKED_AT = 200
_OUTAGE_BASE = timedelta(milliseconds=500)
_OUTAGE_CAP = timedelta(seconds=5)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerTerms:
    """`capacity` is how many jobs are in flight at most, `attempt_limit` how long one attempt may take at most.

    `worker` is the id of the stored worker, `owner` names it in leases.
    """

    worker: str
    owner: str
    wanted: ClaimFilter
    capacity: int
    poll_interval: timedelta
    lease: LeaseTerms
    attempt_limit: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What all consumers on one event loop share.

    `later` is told when a job will be due again, `ended` of every attempt when its calls are durable, or never will be.
    """

    queue: JobQueue
    hop: Hop
    clock: Clock
    handler: JobHandler
    settler: Settler
    heartbeat: Heartbeat
    policy: RetryPolicy
    rng: random.Random
    later: Callable[[datetime], None]
    rooms: Rooms = field(default_factory=Unrestricted)
    ended: Callable[[Hold], None] = lambda _: None


class Consumer:
    """Runs one worker's jobs on one event loop.

    `may_claim` is asked before every claim: False while it is not certain that the worker is this process's to run.
    """

    def __init__(self, terms: ConsumerTerms, tools: Tools, may_claim: Callable[[], bool]) -> None:
        self._terms = terms
        self._tools = tools
        self._may_claim = may_claim
        self._claimer = Claimer(tools.queue, terms.wanted, terms.owner)
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._changed = asyncio.Event()
        self._held: dict[str, tuple[Held, asyncio.Task[None]]] = {}
        self._stopping = False
        self._releasing = False
        self._backlog = True
        self._outages = 0
        self._idle_seconds = _FIRST_IDLE_SECONDS

    @property
    def in_flight(self) -> int:
        return len(self._held)

    @property
    def _free(self) -> int:
        return self._terms.capacity - len(self._held)

    def offer(self, jobs: Sequence[Job]) -> None:
        """New jobs in this process: wakes the consumer if one fits. From any thread."""
        if any(not mismatches(self._terms.wanted, job) for job in islice(jobs, _LOOKED_AT)) or len(jobs) > _LOOKED_AT:
            self.wake()

    def wake(self) -> None:
        """There may be jobs: look now. From any thread; harmless when the loop has ended."""
        if not self._ready.is_set() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ready.set)

    def fenced(self, job_id: str) -> None:
        """This job was taken away: drop its call if it is held here. From any thread."""
        if job_id in self._held and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._lose, job_id)

    def _lose(self, job_id: str) -> None:
        if job_id in self._held:
            self._held[job_id][0].lose()

    async def run(self) -> None:
        """Works until `stop`; then returns when nothing is in flight any more. Storage outages are waited out."""
        while not self._stopping:
            await self._round()
        while self._held:
            await asyncio.wait([task for _, task in self._held.values()])

    async def serve(self) -> None:
        """As `run`, but claims nothing: works on what it is given to adopt."""
        while not self._stopping:
            self._changed.clear()
            await self._changed.wait()
        while self._held:
            await asyncio.wait([task for _, task in self._held.values()])

    def adopt(self, job: Job, good_until: float) -> None:
        """Work on a job that was claimed in this consumer's name; see Held for `good_until`. On the consumer's loop.

        After `stop` the job is given back at once.
        """
        self._start(job, good_until, delay=0.0)

    def stop(self) -> None:
        """Claim nothing more; what is in flight goes on. On the consumer's loop."""
        self._stopping = True
        self._ready.set()
        self._changed.set()

    def release(self) -> None:
        """Stop, and give back uncharged what is in flight. On the consumer's loop."""
        self.stop()
        self._releasing = True
        for held, _ in list(self._held.values()):
            held.release()

    async def _round(self) -> None:
        self._ready.clear()
        asked = self._free if self._may_claim() else 0
        try:
            claimed = await self._claim(asked) if asked else 0
        except StorageError as error:
            await self._wait_out(error)
            return
        self._outages = 0
        if claimed:
            self._idle_seconds = _FIRST_IDLE_SECONDS
        self._backlog = claimed == asked and asked > 0
        await (self._wait_for_slots() if self._backlog else self._wait_for_jobs())

    async def _claim(self, limit: int) -> int:
        """Claims and starts up to `limit` jobs; answers how many it were."""
        tools, lease = self._tools, self._terms.lease
        caps = tools.rooms.caps()
        if self._is_shut(caps):
            tools.rooms.claimed((), caps)
            return 0
        asked_at, now = tools.clock.monotonic(), tools.clock.now()
        wish = Wish(
            limit=limit,
            in_flight=Counter(held.job.client_id for held, _ in self._held.values()),
            caps=caps,
            shut_clients=tools.rooms.shut_clients(),
        )
        jobs = await tools.hop(self._claimer.claim, wish, now + lease.length, now)
        tools.rooms.claimed(jobs, caps)
        good_until = lease.good_until(asked_at)
        for place, job in enumerate(jobs):
            self._start(job, good_until, self._ramp(place, len(jobs)))
        return len(jobs)

    def _is_shut(self, caps: Mapping[str, int]) -> bool:
        """Whether there is nothing that this worker may claim, so that looking is not worth a query."""
        model = self._terms.wanted.model
        return self._tools.rooms.shut_worker(self._terms.worker) or (model is not None and caps.get(model) == 0)

    def _ramp(self, place: int, count: int) -> float:
        """Seconds to wait before a start: a batch is spread a little, lest it comes back as one wave for ever."""
        if count <= _WITHOUT_RAMP:
            return 0.0
        return place // _STARTS_A_STEP * _RAMP_SECONDS

    def _start(self, job: Job, good_until: float, delay: float) -> None:
        tools = self._tools
        overdue_at = tools.clock.monotonic() + self._terms.attempt_limit.total_seconds() * 1.1 + delay
        held = Held(
            job, queue=tools.queue, hop=tools.hop, clock=tools.clock, good_until=good_until, overdue_at=overdue_at
        )
        tools.heartbeat.add(held)
        task = self._loop.create_task(self._work(held, delay))
        self._held[job.id] = held, task
        task.add_done_callback(lambda done: self._ended(held, done))
        if self._stopping:
            held.release()

    def _ended(self, held: Held, task: asyncio.Task[None]) -> None:
        self._tools.heartbeat.remove(held)
        self._tools.ended(held.hold)
        if self._held.get(held.job.id, (None, None))[1] is task:
            del self._held[held.job.id]
        self._changed.set()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("job_not_settled", job=held.job.id, error=type(error).__name__)

    async def _work(self, held: Held, delay: float) -> None:
        outcome = await self._handled(held, delay)
        now = self._tools.clock.now()
        if outcome is not None and await self._settled(held, outcome, now):
            _report(held, outcome)
            if isinstance(outcome, (Retried, Released)):
                self._tools.later(outcome.due_at if isinstance(outcome, Retried) else now)
        elif held.has_calls:
            await self._tools.settler.book(held.job.id, held.late_attempt(now))

    async def _settled(self, held: Held, outcome: Outcome, now: datetime) -> bool:
        """Whether the outcome was written. One that cannot be stored becomes a dead letter that can."""
        try:
            return await self._settle(held, outcome, now)
        except MetasyncError as error:
            failure = failure_of(error, held.job.attempts + 1, now)
            return await self._settle(held, DeadLettered(failure), now)

    async def _settle(self, held: Held, outcome: Outcome, now: datetime) -> bool:
        attempt = held.attempt(outcome, now)
        hold = held.hold
        return await self._tools.settler.settle(
            Settlement(job_id=hold.job_id, token=hold.token, outcome=outcome, attempt=attempt)
        )

    async def _handled(self, held: Held, delay: float) -> Outcome | None:
        """What handling the job ends in; None where it was taken away meanwhile."""
        if held.lost or held.releasing:
            return None if held.lost else Released("stopped before its start")
        handling = asyncio.current_task()
        held.handling = handling
        limit = self._terms.attempt_limit.total_seconds()
        try:
            await asyncio.sleep(delay)
            async with asyncio.timeout(limit):
                return await self._tools.handler.handle(held)
        except asyncio.CancelledError:
            return self._dropped(held, handling)
        except LeaseLost:
            return None
        except TimeoutError:
            return self._decided(held, ProviderTimeout(f"the attempt took longer than {limit:g} seconds"))
        except Exception as error:  # whatever a handler does, its job must end and the loop go on
            if not isinstance(error, MetasyncError):
                log.exception("handler_broke", job=held.job.id)
            return self._decided(held, error)
        finally:
            held.handling = None

    @staticmethod
    def _dropped(held: Held, handling: "asyncio.Task[None] | None") -> Outcome | None:
        """After a cancellation: ours, for a reason that is known, or the loop's own end, which passes on."""
        if not held.lost and not held.releasing:
            raise asyncio.CancelledError
        if handling is not None:
            handling.uncancel()
        return None if held.lost else Released("stopped")

    def _decided(self, held: Held, error: Exception) -> Outcome:
        tools = self._tools
        return tools.policy.decide(held.job, error, tools.clock.now(), tools.rng)

    async def _wait_for_slots(self) -> None:
        """More jobs are waiting than fit: until enough slots are free to be worth a claim."""
        while self._free == 0 and not self._stopping:
            self._changed.clear()
            await self._changed.wait()
        if self._free < self._terms.capacity // 4 and not self._stopping:
            await asyncio.sleep(_GATHER_SECONDS)

    async def _wait_for_jobs(self) -> None:
        """Nothing more to claim: until a signal, or the next poll, which comes later each time."""
        longest = self._terms.poll_interval.total_seconds()
        wait = min(self._idle_seconds, longest)
        self._idle_seconds = min(self._idle_seconds * 2, longest)
        await self._ready_within(min(wait, self._tools.rooms.look_again()))

    async def _ready_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        except TimeoutError:
            return

    async def _wait_out(self, error: StorageError) -> None:
        self._outages += 1
        if self._outages == 1:
            log.warning("claims_wait", owner=self._terms.owner, reason=str(error))
        pause = full_jitter(self._outages, base=_OUTAGE_BASE, cap=_OUTAGE_CAP, rng=self._tools.rng)
        await self._ready_within(pause.total_seconds())


def _report(held: Held, outcome: Outcome) -> None:
    """One line per attempt: what went well only for those who want to see it all."""
    job = held.job
    if isinstance(outcome, (Completed, Released)) or _waits(outcome):
        log.debug("job_settled", job=job.id, model=job.model, outcome=type(outcome).__name__)
    else:
        log.info("job_failed", job=job.id, model=job.model, outcome=type(outcome).__name__, **_why(outcome))


def _waits(outcome: Outcome) -> bool:
    """Whether no call was made, because a limit, a pause or a budget was in the way: nothing has failed."""
    return isinstance(outcome, Retried) and outcome.failure.error_type in HELD_BACK


def _why(outcome: Outcome) -> dict[str, object]:
    failure = getattr(outcome, "failure", None)
    return {} if failure is None else {"error": failure.error_type, "attempts": failure.attempts}
