"""The gate between asynchronous routes and synchronous storage."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import structlog

from api.core import gate as gate_module
from api.core.gate import Gate
from engine.errors import InvalidField, StorageUnavailable
from engine.jobs.job import Job
from tests.support.factories import make_job, make_jobs
from tests.support.waiting import eventually


class Queue:
    """The insert of a JobQueue: keeps the groups it was given, after doing what the test says."""

    def __init__(self, before: Callable[[Sequence[Job]], None] = lambda jobs: None) -> None:
        self.groups: list[list[Job]] = []
        self._before = before

    def insert(self, jobs: Sequence[Job]) -> None:
        self._before(jobs)
        self.groups.append(list(jobs))


def opened(queue: Any) -> Gate:
    return Gate(queue)


async def inserted_together(queue: Queue, groups: Sequence[Sequence[Job]]) -> list[BaseException | None]:
    """What each of several inserts at the same time ended with."""
    gate = opened(queue)
    try:
        return list(await asyncio.gather(*(gate.insert(jobs) for jobs in groups), return_exceptions=True))
    finally:
        gate.close()


def test_inserts_that_come_together_share_a_write() -> None:
    """Twenty inserts in the same instant are one bulk insert, in the order they came."""
    queue = Queue()
    groups = [make_jobs(2) for _ in range(20)]
    assert asyncio.run(inserted_together(queue, groups)) == [None] * 20
    assert queue.groups == [[job for jobs in groups for job in jobs]]


def test_inserts_during_a_write_share_the_next_one() -> None:
    """Whoever comes while a write is under way does not wait for a write each."""
    entered, go = threading.Event(), threading.Event()

    def hold(jobs: Sequence[Job]) -> None:
        entered.set()
        assert go.wait(10)

    async def scenario(queue: Queue) -> None:
        gate = opened(queue)
        first = asyncio.create_task(gate.insert([make_job()]))
        await asyncio.to_thread(entered.wait, 10)
        others = [asyncio.create_task(gate.insert([make_job()])) for _ in range(5)]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, *others)
        gate.close()

    queue = Queue(hold)
    asyncio.run(scenario(queue))
    assert [len(group) for group in queue.groups] == [1, 5]


def test_a_write_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group ends once it has its most jobs; a single insert may be larger than that."""
    monkeypatch.setattr(gate_module, "MOST_JOBS_PER_WRITE", 10)
    queue = Queue()
    asyncio.run(inserted_together(queue, [make_jobs(4), make_jobs(4), make_jobs(4), make_jobs(30), make_jobs(1)]))
    assert [len(group) for group in queue.groups] == [12, 30, 1]


def test_an_outage_is_told_to_everybody_in_the_group() -> None:
    """When the database is away each of a group's inserts raises StorageUnavailable, after one try."""
    tries = []

    def away(jobs: Sequence[Job]) -> None:
        tries.append(len(jobs))
        raise StorageUnavailable("away")

    ends = asyncio.run(inserted_together(Queue(away), [make_jobs(1)] * 3))
    assert [type(end) for end in ends] == [StorageUnavailable] * 3
    assert tries == [3]


@pytest.mark.parametrize("error", [TypeError("cannot be stored"), InvalidField("document", "too large")])
def test_one_bad_insert_does_not_spoil_the_others(error: Exception) -> None:
    """What only one insert's jobs cause is raised to that one; the others are stored."""
    bad = make_job()

    def picky(jobs: Sequence[Job]) -> None:
        if bad in jobs:
            raise error

    queue = Queue(picky)
    ends = asyncio.run(inserted_together(queue, [make_jobs(1), [bad], make_jobs(1)]))
    assert ends == [None, error, None]
    assert [len(group) for group in queue.groups] == [1, 1]


def test_a_caller_that_goes_away_does_not_disturb_the_group() -> None:
    """A cancelled insert is stored or not, and whoever shares its write gets an answer."""

    async def scenario(queue: Queue) -> None:
        gate = opened(queue)
        gone = asyncio.create_task(gate.insert([make_job()]))
        stays = asyncio.create_task(gate.insert([make_job()]))
        await asyncio.sleep(0)
        gone.cancel()
        await stays
        gate.close()

    queue = Queue()
    asyncio.run(scenario(queue))
    assert len(queue.groups) == 1


def test_calls_pass_results_errors_and_log_context() -> None:
    """A call answers its function's result, raises its error, and sees the caller's log context."""

    def context() -> Any:
        return structlog.contextvars.get_contextvars()

    async def scenario() -> None:
        gate = opened(Queue())
        with structlog.contextvars.bound_contextvars(correlation_id="x"):
            assert await gate(context) == {"correlation_id": "x"}
        assert await gate(divmod, 7, 3) == (2, 1)
        with pytest.raises(ZeroDivisionError):
            await gate(divmod, 1, 0)
        gate.close()

    asyncio.run(scenario())


def test_too_many_waiting_calls_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hanging database fills a bounded queue; beyond it calls are refused, and accepted again once it answers."""
    monkeypatch.setattr(gate_module, "MOST_WAITING", 10)
    go = threading.Event()

    async def scenario() -> None:
        gate = opened(Queue())
        waiting = [asyncio.create_task(gate(go.wait, 10)) for _ in range(10)]
        await asyncio.sleep(0)
        with pytest.raises(StorageUnavailable):
            await gate(go.is_set)
        go.set()
        await asyncio.gather(*waiting)
        assert await gate(go.is_set)
        gate.close()

    asyncio.run(scenario())


def test_who_waited_for_a_thread_is_told_of_the_outage_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that waited while others found the database away does not find out anew: it would be told too late."""
    monkeypatch.setattr(gate_module, "NOTICED_SECONDS", 0.0)
    go, tries = threading.Event(), []

    def away() -> None:
        tries.append(1)
        go.wait(10)
        raise StorageUnavailable("away", retry_after=3.0)

    async def scenario() -> None:
        gate = opened(Queue())
        calls = [asyncio.create_task(gate(away)) for _ in range(3 * gate_module.THREADS)]
        await asyncio.to_thread(eventually, lambda: len(tries) == gate_module.THREADS)
        go.set()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert {(type(end), getattr(end, "retry_after", None)) for end in ends} == {(StorageUnavailable, 3.0)}
        assert len(tries) == gate_module.THREADS
        assert await gate(divmod, 7, 3) == (2, 1)
        gate.close()

    asyncio.run(scenario())
