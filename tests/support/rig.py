"""A pool with a scripted handler over any storage, in this process: what the engine does, without any provider."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from engine.errors import StorageUnavailable
from engine.jobs.handler import Assignment
from engine.jobs.job import Call, Job
from engine.jobs.outcome import Completed
from engine.jobs.retry import RetryPolicy
from engine.jobs.signals import JobSignals
from engine.jobs.states import JobState
from engine.metadata import Metadata
from engine.records.store import Storage
from engine.records.values import Worker, WorkerConfig, WorkerScope, WorkerStatus
from llm_workers.assembly import build_pool
from llm_workers.pool import WorkerPool
from llm_workers.terms import PoolTerms
from tests.support.waiting import eventually
from utilities.clock import Clock, SystemClock
from utilities.hop import ThreadHop
from utilities.ids import ObjectIds

IDS = ObjectIds()
ENDED = frozenset({JobState.PROCESSED, JobState.ERROR_PROCESSING, JobState.CANCELED})
Script = Callable[[Job, int], Awaitable[None]]
"""What a call does, given its job and its number for this job (from 1): returns, raises or takes its time."""


async def succeed(job: Job, number: int) -> None:
    """The script in which every call succeeds at once."""


class ScriptedHandler:
    """A JobHandler that makes one recorded call per attempt. `calls` counts them by job id, over all loops."""

    def __init__(self, script: Script = succeed, clock: Clock | None = None) -> None:
        self.calls: Counter[str] = Counter()
        self.order: list[str] = []
        self._script = script
        self._clock = clock or SystemClock()

    async def handle(self, work: Assignment) -> Completed:
        work.guard()
        job = work.job
        self.calls[job.id] += 1
        self.order.append(job.id)
        call = Call(
            step="work", model=job.model, started_at=self._clock.now(), duration=0.0, outcome="ok", input_tokens=1
        )
        try:
            await self._script(job, self.calls[job.id])
        except asyncio.CancelledError:
            work.record(replace(call, outcome="unknown"))
            raise
        except Exception:
            work.record(replace(call, outcome="error"))
            raise
        work.record(call)
        return Completed(result={"answer": job.request_data})

    async def aclose(self) -> None:
        return


@dataclass
class Rig:
    """A running pool. `worker` is the one worker it runs; `reader` looks at the storage behind its back."""

    storage: Storage
    pool: WorkerPool
    signals: JobSignals
    handler: ScriptedHandler
    clock: Clock
    worker: Worker
    reader: Storage
    posted: list[str] = field(default_factory=list)

    def post(self, jobs: Sequence[Job]) -> None:
        """Insert as the API does, trying again while the database is away."""
        persist(lambda: self.storage.jobs.insert(jobs))
        self.posted += [job.id for job in jobs]
        self.signals.ready(jobs)

    def ended(self) -> dict[str, Job] | None:
        """All posted jobs by id once every one of them has ended, else None."""
        jobs = self.reader.jobs.get_many(self.posted)
        return jobs if all(job.status in ENDED for job in jobs.values()) else None

    def wait(self, within: float = 20.0) -> dict[str, Job]:
        return eventually(self.ended, within=within, what="all jobs ended")


def persist(operation: Callable[[], Any]) -> Any:
    """`operation`, again while the storage is unavailable, at most 200 times."""
    for _ in range(200):
        try:
            return operation()
        except StorageUnavailable:
            continue
    raise AssertionError("the storage stayed unavailable")


def new_job(clock: Clock, client: str = "client-a", **fields: Any) -> Job:
    """A valid job, due now."""
    values: dict[str, Any] = {
        "id": IDS.new(),
        "client_id": client,
        "operation": "test",
        "working_prompts": ("0" * 24,),
        "model": "m",
        "temperature": 0.0,
        "priority": 5,
        "request_data": {"text": "hello"},
        "metadata": Metadata(created_at=clock.now(), created_by=client),
    }
    return Job(**{**values, **fields})


def new_worker(
    clock: Clock, *, capacity: int = 4, poll: int = 1, scope: WorkerScope = WorkerScope.ALL, **fields: Any
) -> Worker:
    """A worker that shall run and that nobody runs yet."""
    values: dict[str, Any] = {
        "id": IDS.new(),
        "name": f"worker-{IDS.new()}",
        "client_id": "client-a",
        "scope": scope,
        "status": WorkerStatus.RUNNING,
        "config": WorkerConfig(poll_interval=poll, max_items_per_batch=capacity),
        "metadata": Metadata(created_at=clock.now(), created_by="admin"),
    }
    return Worker(**{**values, **fields})


@contextmanager
def running_pool(
    storage: Storage,
    handler: ScriptedHandler,
    *,
    worker: Worker | None = None,
    lease: timedelta = timedelta(seconds=60),
    worker_lease: timedelta = timedelta(seconds=15),
    attempt_limit: timedelta = timedelta(seconds=60),
    policy: RetryPolicy | None = None,
    clock: Clock | None = None,
    incarnation: str | None = None,
    reader: Storage | None = None,
) -> Iterator[Rig]:
    """A started pool on `storage` with one running worker, stored already if given; drained at the end."""
    clock = clock or SystemClock()
    if worker is None:
        worker = new_worker(clock)
        storage.workers.add(worker)
    signals = JobSignals()
    executor = ThreadPoolExecutor(4, thread_name_prefix="test-storage")
    terms = PoolTerms(
        incarnation=incarnation or f"test-{random.getrandbits(48):x}",
        most_threads=2,
        lease=lease,
        worker_lease=worker_lease,
        attempt_limit=attempt_limit,
        grace=timedelta(seconds=5),
    )
    pool = build_pool(
        terms,
        storage=storage,
        signals=signals,
        clock=clock,
        hop=ThreadHop(executor),
        make_handler=lambda: handler,
        policy=policy or RetryPolicy(base=timedelta(milliseconds=10)),
        calibrate=lambda: None,
        seed=1,
    )
    pool.start()
    try:
        yield Rig(storage, pool, signals, handler, clock, worker, reader or storage)
    finally:
        pool.drain(timedelta(seconds=5))
        executor.shutdown(wait=True)
