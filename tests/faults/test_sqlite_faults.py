"""Fault 10: what the SQLite back-end makes of locks, a full disk, kill -9 in a commit, and files it cannot use."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from engine.errors import StorageUnavailable
from engine.jobs.job import Job
from engine.jobs.queue import JobQuery
from engine.jobs.states import JobState
from engine.storage.sqlite import SqliteStorage, open_sqlite
from engine.storage.sqlite.connection import BUSY_SECONDS
from tests.support.api import running_api
from tests.support.factories import make_job, make_jobs
from tests.support.faulty import Faulty, Plan
from tests.support.jobs_http import Shop, open_shop
from tests.support.rig import ScriptedHandler, new_job, new_worker, running_pool
from tests.support.sqlite_child import BATCH
from tests.support.sqlite_file import AMPLE, child, in_one_group, is_sound, leave_room, locked, said_by, stored
from tests.support.waiting import eventually
from utilities.clock import SystemClock


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "faults.db"


@pytest.fixture
def storage(file: Path) -> Iterator[SqliteStorage]:
    """A storage as the service opens it by default: every commit waits for the disk."""
    opened = open_sqlite(file)
    yield opened
    opened.close()


@pytest.fixture
def shop(storage: SqliteStorage) -> Iterator[Shop]:
    """A client of the HTTP API over the storage."""
    with running_api(storage) as api:
        yield open_shop(api)


class TestLocked:
    """Another process holds the write lock."""

    def test_a_write_waits_for_the_lock(self, file: Path, storage: SqliteStorage) -> None:
        """A lock that is given up within the bound delays a write, and nothing else."""
        with locked(file) as other, ThreadPoolExecutor(1) as threads:
            asked = threads.submit(storage.jobs.insert, make_jobs(3))
            with pytest.raises(NotYet):
                asked.result(0.3)
            assert storage.jobs.count(JobQuery()) == 0
            other.execute("COMMIT")
            asked.result(BUSY_SECONDS)
        assert storage.jobs.count(JobQuery()) == 3

    def test_past_the_bound_it_is_an_outage(self, file: Path, storage: SqliteStorage) -> None:
        """A lock that stays is StorageUnavailable for all who wait, within five seconds; then all goes on."""
        with locked(file), ThreadPoolExecutor(20) as threads:
            started = time.monotonic()
            asked = [threads.submit(storage.jobs.insert, make_jobs(3)) for _ in range(20)]
            errors = [one.exception(10) for one in asked]
            assert BUSY_SECONDS <= time.monotonic() - started < 5.0
        assert all(isinstance(error, StorageUnavailable) and error.retry_after > 0 for error in errors)
        assert storage.jobs.count(JobQuery()) == 0
        storage.jobs.insert(make_jobs(3))
        assert is_sound(file)

    def test_over_http_it_is_503(self, file: Path, shop: Shop) -> None:
        """Writes are 503 with Retry-After, reads are answered meanwhile, and afterwards the same request succeeds."""
        with locked(file):
            refused = shop.call("POST", "/jobs/batch", {"jobs": [shop.body()] * 3})
            listed = shop.call("GET", "/jobs")
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert (listed.status_code, listed.json()) == (200, [])
        assert shop.call("POST", "/jobs/batch", {"jobs": [shop.body()] * 3}).status_code == 201

    def test_a_second_start_waits_for_the_lock(self, file: Path, storage: SqliteStorage) -> None:
        """A process that starts while another one writes waits for it as well."""
        with locked(file) as other, ThreadPoolExecutor(1) as threads:
            opening = threads.submit(open_sqlite, file)
            with pytest.raises(NotYet):
                opening.result(0.3)
            other.execute("COMMIT")
            opening.result(BUSY_SECONDS).close()


class TestFullDisk:
    """There is no room for another page."""

    def test_a_batch_is_refused_whole(self, file: Path, storage: SqliteStorage, shop: Shop) -> None:
        """A batch that does not fit is 503 with Retry-After and leaves no row; reads go on; with room it goes on."""
        shop.post()
        batch = {"jobs": [shop.body(clientReference={"team": "red"}) for _ in range(2000)]}
        leave_room(storage, 20)
        refused = shop.call("POST", "/jobs/batch", batch)
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert len(shop.call("GET", "/jobs").json()) == 1
        assert stored(file, "SELECT COUNT(*) FROM jobs") == [(1,)]
        assert is_sound(file)

        leave_room(storage, AMPLE)
        assert shop.call("POST", "/jobs/batch", batch).status_code == 201
        assert stored(file, "SELECT COUNT(*) FROM jobs") == [(2001,)]
        assert is_sound(file)

    @pytest.mark.parametrize("path", ["/jobs", "/jobs/batch"])
    def test_a_repeated_request_is_done_once(self, storage: SqliteStorage, shop: Shop, path: str) -> None:
        """A request with an Idempotency-Key that met a full disk is done when it is repeated, and once."""
        large = shop.body(requestData={"text": "x" * 200_000})
        body = large if path == "/jobs" else {"jobs": [large] * 3}
        leave_room(storage, 0)
        answers = []
        for room in (None, AMPLE, None):
            if room:
                leave_room(storage, room)
            answers.append(shop.call("POST", path, body, headers={"Idempotency-Key": "once"}))
        assert [answer.status_code for answer in answers] == [503, 201, 201]
        assert answers[1].content == answers[2].content
        assert storage.jobs.count(JobQuery()) == (1 if path == "/jobs" else 3)

    def test_who_fits_is_not_refused_with_who_does_not(self, file: Path, storage: SqliteStorage) -> None:
        """Of inserts that share a commit, only those fail for which there is no room."""
        small, large = make_jobs(8), [make_job(request_data={"text": "x" * 200_000}) for _ in range(4)]
        leave_room(storage, 5)
        asked = in_one_group(storage._writer, [partial(storage.jobs.insert, [job]) for job in (*small, *large)])
        errors = [one.exception() for one in asked]
        assert errors[:8] == [None] * 8
        assert all(isinstance(error, StorageUnavailable) for error in errors[8:])
        assert {job_id for (job_id,) in stored(file, "SELECT id FROM jobs")} == {job.id for job in small}
        assert is_sound(file)

    def test_the_operating_system_refuses_to_write(self, file: Path) -> None:
        """A limit of the operating system, met between a batch's pages, is an outage that leaves nothing behind."""
        before, refused, meanwhile, after = said_by("full", file)
        assert refused.startswith("refused StorageUnavailable the ")
        assert (before, meanwhile, after) == (f"before {BATCH}", f"meanwhile {BATCH} 0", f"after {BATCH + 500}")
        assert is_sound(file)


class TestAPoolAtWork:
    """The disk is full, or another process holds the lock, when paid answers come."""

    @pytest.mark.parametrize("trouble", ["full", "locked"])
    def test_paid_answers_wait(self, file: Path, storage: SqliteStorage, trouble: str) -> None:
        """The results are kept and written when that is possible again; no call is made twice."""
        answered = threading.Event()

        async def answer_when_told(job: Job, number: int) -> None:
            await asyncio.to_thread(answered.wait, 20)

        worker, clock = new_worker(SystemClock()), SystemClock()
        storage.workers.add(worker)
        faulty = Faulty(storage, Plan())
        with running_pool(faulty, ScriptedHandler(answer_when_told), worker=worker, reader=storage) as rig:
            rig.post([new_job(clock, request_data={"text": "x" * 100_000}) for _ in range(4)])
            eventually(lambda: len(rig.handler.calls) == 4)
            with troubled(file, storage, trouble):
                answered.set()
                eventually(lambda: faulty.log.count("jobs.settle") > 1)
                assert rig.ended() is None
            jobs = rig.wait()
        assert {job.status for job in jobs.values()} == {JobState.PROCESSED}
        assert {(job.totals.calls, len(job.ledger), job.attempts) for job in jobs.values()} == {(1, 1, 0)}
        assert set(rig.handler.calls.values()) == {1}
        assert is_sound(file)


@contextmanager
def troubled(file: Path, storage: SqliteStorage, trouble: str) -> Iterator[None]:
    if trouble == "locked":
        with locked(file):
            yield
        return
    leave_room(storage, 0)
    yield
    leave_room(storage, AMPLE)


def acknowledged_until_killed(file: Path, batches: int) -> list[list[str]]:
    """The batches that a child says were stored, at least so many, until it was killed while it went on."""
    with child("insert", file) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(batches)]
        process.kill()
        lines += process.stdout.readlines()
    return [line.split() for line in lines if line.endswith("\n")]


class TestKilled:
    """kill -9 of a process that writes."""

    def test_what_was_acknowledged_is_there(self, file: Path) -> None:
        """Five times a writing process is killed: every acknowledged batch is there, every batch is whole, and the
        file is sound."""
        acknowledged: list[list[str]] = []
        for round_ in range(5):
            acknowledged += acknowledged_until_killed(file, 10 + 25 * round_)
            storage = open_sqlite(file)
            try:
                for batch in acknowledged:
                    assert storage.jobs.get_many(batch).keys() == set(batch)
            finally:
                storage.close()
            sizes = stored(file, "SELECT DISTINCT COUNT(*) FROM jobs GROUP BY client_job_id")
            assert sizes == [(BATCH,)]
            assert is_sound(file)

    def test_a_killed_process_leaves_no_lock(self, file: Path, storage: SqliteStorage) -> None:
        """A process beside it goes on at once: the lock dies with who held it."""
        acknowledged_until_killed(file, 5)
        started = time.monotonic()
        storage.jobs.insert(make_jobs(BATCH))
        assert time.monotonic() - started < BUSY_SECONDS
