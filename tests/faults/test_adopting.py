"""Jobs that the pool is given to run without a worker."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from engine.jobs.changes import after_event
from engine.jobs.job import Job
from engine.jobs.rooms import Unrestricted
from engine.jobs.states import Event, JobState
from engine.records.store import Storage
from llm_workers.direct import PoolRuns
from tests.support.rig import Rig, ScriptedHandler, new_job, new_worker, running_pool
from tests.support.waiting import eventually
from utilities.clock import SystemClock

CLOCK = SystemClock()
LEASE = timedelta(seconds=1.5)


@contextmanager
def adopting(storage: Storage, handler: ScriptedHandler) -> Iterator[tuple[Rig, PoolRuns]]:
    """A pool whose only worker nobody has stored."""
    with running_pool(storage, handler, worker=new_worker(CLOCK), lease=LEASE) as rig:
        yield rig, PoolRuns(rig.pool, Unrestricted(), most=10)


def given(rig: Rig, runs: PoolRuns) -> Job:
    """A new job, claimed for this replica and handed over."""
    asked_at, now, job = CLOCK.monotonic(), CLOCK.now(), new_job(CLOCK)
    rig.storage.jobs.insert([job])
    claimed = after_event(job, Event.CLAIM, now, by="worker", lease=runs.lease(now))
    assert rig.storage.jobs.compare_and_set([claimed], now) == [True]
    runs.run(claimed, asked_at)
    return claimed


def status(storage: Storage, job: Job) -> JobState:
    found = storage.jobs.get(job.id)
    assert found is not None
    return found.status


def test_a_given_job_is_kept_and_settled(storage: Storage) -> None:
    """A job that takes longer than its lease is held to its end, told once it is settled, and heard of by no one after
    he has ended to listen; other jobs are left alone."""
    told: list[str] = []

    async def slow(job: Job, number: int) -> None:
        await asyncio.sleep(1.3 * LEASE.total_seconds())

    with adopting(storage, ScriptedHandler(slow)) as (rig, runs):
        other = new_job(CLOCK)
        rig.post([other])
        end = rig.signals.on_settled(told.append)
        job = given(rig, runs)
        assert eventually(lambda: told) == [job.id]
        end()
        assert status(storage, job) is JobState.PROCESSED
        assert status(storage, other) is JobState.PENDING
        assert (rig.handler.calls.total(), runs.in_flight) == (1, 0)
        last = given(rig, runs)
        eventually(lambda: status(storage, last) is JobState.PROCESSED)
        assert told == [job.id]


def test_what_is_given_during_a_drain_goes_back(storage: Storage) -> None:
    """While a drain waits for a call in flight, a job that is handed over is given back at once, uncharged; after the
    drain nothing is held."""
    release = threading.Event()

    async def hold(job: Job, number: int) -> None:
        await asyncio.to_thread(release.wait, 20)

    with adopting(storage, ScriptedHandler(hold)) as (rig, runs):
        first = given(rig, runs)
        eventually(lambda: rig.handler.calls.total() == 1)
        assert (runs.in_flight, rig.pool.in_flight, runs.draining) == (1, 1, False)
        rig.pool.begin_drain()
        assert runs.draining
        late = given(rig, runs)
        eventually(lambda: status(storage, late) is JobState.PENDING)
        assert rig.handler.calls.total() == 1
        release.set()
        rig.pool.drain(timedelta(seconds=5))
        assert status(storage, first) is JobState.PROCESSED
        assert storage.jobs.get_many([late.id])[late.id].attempts == 0
