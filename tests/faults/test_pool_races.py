"""Workers that start, stop and end at the same time, and jobs that change hands in one process."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.jobs.job import Job
from engine.jobs.retry import RetryPolicy
from engine.jobs.states import JobState
from engine.llm import TransientProviderError
from engine.records.store import Storage
from engine.records.values import Worker, WorkerStatus
from engine.storage.factory import open_storage
from tests.support.rig import Rig, ScriptedHandler, new_job, new_worker, running_pool
from tests.support.waiting import eventually
from utilities.clock import SystemClock

CLOCK = SystemClock()
AN_HOUR = 3600


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Storage]:
    """What happens within one process does not depend on the back-end."""
    storage = open_storage(f"sqlite:///{tmp_path / 'jobs.db'}", database="test", synchronous="NORMAL")
    yield storage
    storage.close()


def _status(storage: Storage, job: Job) -> JobState:
    found = storage.jobs.get(job.id)
    assert found is not None
    return found.status


def _stop(storage: Storage, worker: Worker) -> None:
    """Store that the worker shall not run, as the API does."""

    def stopped() -> bool:
        stored = storage.workers.get(worker.id)
        assert stored is not None
        return storage.workers.compare_and_set(replace(stored, status=WorkerStatus.STOPPED, lease=None))

    eventually(stopped)


class _Hanging(ScriptedHandler):
    """Its first call hangs until it is dropped; all others succeed."""

    def __init__(self) -> None:
        super().__init__(self._hang)
        self.hangs = threading.Event()
        self.dropped = threading.Event()

    async def _hang(self, _job: Job, number: int) -> None:
        if number == 1:
            self.hangs.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.dropped.set()


def test_a_worker_that_starts_while_another_ends(local: Storage) -> None:
    """A consumer that ends on the loop where another one is just being made does not hold the loop up."""
    first, second = new_worker(CLOCK), new_worker(CLOCK)
    local.workers.add(first)
    with running_pool(local, ScriptedHandler(), worker=first) as rig:
        ending = eventually(lambda: rig.pool.runs(first.id))
        thread = rig.pool._threads[0]  # type: ignore[attr-defined]
        submit = thread.submit

        async def after_the_end(work: Coroutine[Any, Any, Any]) -> Any:
            ending.stop()
            for _ in range(50):
                await asyncio.sleep(0)
            return await work

        def submitted(work: Coroutine[Any, Any, Any]) -> "Future[Any]":
            late = getattr(work, "__name__", "") == "_consumer"
            return submit(after_the_end(work) if late else work)  # type: ignore[no-any-return]

        thread.submit = submitted
        local.workers.add(second)
        rig.pool.nudge()
        eventually(lambda: rig.pool.runs(second.id), within=5)


def test_giving_everything_back_means_stopped_workers_too(local: Storage) -> None:
    """A second signal gives back what a worker that was stopped before still has in flight."""
    with _stopping(local) as (rig, job, handler):
        rig.pool.abort()
        assert handler.dropped.wait(2)
        eventually(lambda: _status(local, job) is JobState.PENDING, within=2)


def test_a_canceled_job_of_a_stopped_worker_is_dropped(local: Storage) -> None:
    """A job that is taken away while its worker is being stopped loses its call at once."""
    with _stopping(local) as (rig, job, handler):
        rig.signals.fenced(job.id)
        assert handler.dropped.wait(2)


@contextmanager
def _stopping(storage: Storage) -> Iterator[tuple[Rig, Job, _Hanging]]:
    """A pool whose worker was stopped while the call of its only job hangs."""
    handler, job = _Hanging(), new_job(CLOCK)
    with running_pool(storage, handler) as rig:
        rig.post([job])
        assert handler.hangs.wait(10)
        _stop(storage, rig.worker)
        rig.pool.nudge()
        eventually(lambda: rig.pool.runs(rig.worker.id) is None)
        yield rig, job, handler


def test_a_retry_that_is_due_at_once_is_not_left_to_the_poll(local: Storage) -> None:
    """Where the jitter is so small that a job is ready again when it is settled, its worker looks at once."""

    async def fail_once(_job: Job, number: int) -> None:
        if number < 10:
            raise TransientProviderError("moody")

    worker = new_worker(CLOCK, poll=AN_HOUR)
    local.workers.add(worker)
    policy = RetryPolicy(base=timedelta(0), cap=timedelta(0))
    with running_pool(local, ScriptedHandler(fail_once), worker=worker, policy=policy) as rig:
        rig.post([new_job(CLOCK, max_attempts=20)])
        rig.wait(within=1.5)


def test_a_job_given_back_goes_to_another_worker_at_once(local: Storage) -> None:
    """A job that a stopped worker gives back wakes the other workers of the process, however seldom they poll."""
    other = new_worker(CLOCK, poll=AN_HOUR)
    with _stopping(local) as (rig, job, _):
        local.workers.add(other)
        rig.pool.nudge()
        idle = eventually(lambda: rig.pool.runs(other.id))
        eventually(lambda: idle._idle_seconds > 3, within=10)  # type: ignore[attr-defined]
        _release_stopped(rig)
        eventually(lambda: _status(local, job) is JobState.PROCESSED, within=2)


def _release_stopped(rig: Rig) -> None:
    """What the timer of the grace period does."""
    for running in list(rig.pool._ending.values()):  # type: ignore[attr-defined]
        running.thread.call(running.consumer.release)
