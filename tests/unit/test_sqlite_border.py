"""The border to SQLite: its errors as ours, its connections shared, and a writer that always answers."""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine.errors import InvalidField, StorageCorrupt, StorageError, StorageUnavailable
from engine.jobs.queue import JobQuery
from engine.storage.sqlite import SqliteStorage, connection, open_sqlite, writer
from engine.storage.sqlite.faults import translate, translated
from tests.support.factories import make_job
from tests.support.waiting import eventually


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "border.db"


@pytest.fixture
def storage(file: Path) -> Iterator[SqliteStorage]:
    opened = open_sqlite(file, "NORMAL")
    yield opened
    opened.close()


def error_of(kind: type[sqlite3.Error], code: int) -> sqlite3.Error:
    error = kind("what SQLite says")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("name", "ours", "said"),
    [
        ("SQLITE_BUSY", StorageUnavailable, "locked"),
        ("SQLITE_BUSY_SNAPSHOT", StorageUnavailable, "locked"),
        ("SQLITE_LOCKED", StorageUnavailable, "locked"),
        ("SQLITE_FULL", StorageUnavailable, "full"),
        ("SQLITE_IOERR", StorageUnavailable, "cannot be used"),
        ("SQLITE_IOERR_WRITE", StorageUnavailable, "cannot be used"),
        ("SQLITE_NOMEM", StorageUnavailable, "cannot be used"),
        ("SQLITE_CANTOPEN", StorageUnavailable, "needs the right to write"),
        ("SQLITE_READONLY", StorageUnavailable, "needs the right to write"),
        ("SQLITE_READONLY_DBMOVED", StorageUnavailable, "needs the right to write"),
        ("SQLITE_CORRUPT", StorageCorrupt, "damaged"),
        ("SQLITE_NOTADB", StorageCorrupt, "put a copy in its place"),
        ("SQLITE_TOOBIG", InvalidField, "too large"),
        ("SQLITE_ERROR", StorageError, "unexpected"),
        ("SQLITE_CONSTRAINT_NOTNULL", StorageError, "unexpected"),
    ],
)
def test_every_error_has_its_meaning(name: str, ours: type[Exception], said: str) -> None:
    """By the code, extended ones by their primary code: an outage, a damaged file, an unfit value, or a defect."""
    error = translate(error_of(sqlite3.OperationalError, getattr(sqlite3, name)))
    assert type(error) is ours
    assert said in str(error)
    assert not isinstance(error, StorageUnavailable) or error.retry_after > 0


@pytest.mark.parametrize("value", [2**70, "\ud800"], ids=["number", "character"])
def test_what_cannot_be_bound_is_an_unfit_value(value: object) -> None:
    """What the driver refuses before SQLite sees it names the value, not the database."""
    with sqlite3.connect(":memory:") as memory, pytest.raises(InvalidField), translated():
        memory.execute("SELECT ?", (value,))
    memory.close()


def test_other_peoples_errors_pass() -> None:
    """What is not the driver's stays what it is."""
    error = KeyError("mine")
    assert translate(error) is error


def test_readers_are_few_and_their_loss_is_an_outage(storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all readers are busy for too long, the next one is told; when one is given back, it goes on."""
    monkeypatch.setattr(connection, "_READ_WAIT_SECONDS", 0.05)
    with ExitStack() as busy:
        for _ in range(connection.READERS):
            busy.enter_context(storage._readers.borrow())
        with pytest.raises(StorageUnavailable, match="busy"):
            storage.jobs.count(JobQuery())
    assert storage.jobs.count(JobQuery()) == 0


def test_a_closed_storage_says_so(storage: SqliteStorage) -> None:
    """Reads and writes after the end are refused as an outage; closing again is harmless."""
    storage.jobs.insert([make_job()])
    for _ in range(2):
        storage.close()
    with pytest.raises(StorageUnavailable, match="closed"):
        storage.jobs.insert([make_job()])
    with pytest.raises(StorageUnavailable, match="closed"):
        storage.jobs.count(JobQuery())


def test_closing_does_not_wait_for_ever(storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that does not end keeps its own connection, and does not keep the storage from being closed."""
    monkeypatch.setattr(connection, "_READ_WAIT_SECONDS", 0.05)
    with storage._readers.borrow() as reader:
        storage.close()
        assert reader.execute("SELECT COUNT(*) FROM jobs").fetchone() == (0,)
    reader.close()


def test_closing_finishes_what_was_asked_for(file: Path, storage: SqliteStorage) -> None:
    """Writes that wait when the storage is closed are done and answered."""
    started, gate, jobs = threading.Event(), threading.Event(), [make_job() for _ in range(10)]

    def keep_busy(_: object) -> None:
        started.set()
        gate.wait(10)

    with ThreadPoolExecutor(12) as threads:
        threads.submit(storage._writer.run, keep_busy)
        assert started.wait(10)
        asked = [threads.submit(storage.jobs.insert, [job]) for job in jobs]
        eventually(lambda: storage._writer._queue.qsize() == 10)
        closing = threads.submit(storage._writer.close)
        gate.set()
        closing.result(10)
        assert [one.exception(10) for one in asked] == [None] * 10
    assert storage.jobs.count(JobQuery()) == 10


def test_a_writer_that_does_not_answer_is_an_outage(storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits too long is told so, and an operation that was given up before its turn is not done behind his back."""
    monkeypatch.setattr(writer, "_ANSWER_SECONDS", 0.1)
    started, gate = threading.Event(), threading.Event()

    def hang(_: object) -> None:
        started.set()
        gate.wait(10)

    with ThreadPoolExecutor(1) as threads:
        hanging = threads.submit(storage._writer.run, hang)
        assert started.wait(10)
        with pytest.raises(StorageUnavailable, match="does not answer"):
            storage.jobs.insert([make_job()])
        assert isinstance(hanging.exception(10), StorageUnavailable)
        gate.set()
    monkeypatch.undo()
    storage.jobs.insert([make_job()])
    assert storage.jobs.count(JobQuery()) == 1


def test_an_operations_own_timeout_is_its_own(storage: SqliteStorage) -> None:
    """A TimeoutError that an operation raises is not taken for the writer's."""

    def late(_: object) -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        storage._writer.run(late)


def test_more_than_a_group_takes(storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What exceeds the largest group is done in the next one."""
    monkeypatch.setattr(writer, "_MOST_AT_ONCE", 3)
    with ThreadPoolExecutor(20) as threads:
        asked = [threads.submit(storage.jobs.insert, [make_job()]) for _ in range(20)]
    assert [one.exception() for one in asked] == [None] * 20
    assert storage.jobs.count(JobQuery()) == 20


@pytest.mark.parametrize("gives_up", [True, False])
def test_the_first_start_waits_for_another_first_start(
    file: Path, monkeypatch: pytest.MonkeyPatch, gives_up: bool
) -> None:
    """The switch to WAL, for whose lock SQLite does not wait, is tried until the other one is done, within a bound."""
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.3 if not gives_up else 2.0)
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    other.execute("CREATE TABLE theirs (id)")
    with ThreadPoolExecutor(1) as threads:
        opening = threads.submit(open_sqlite, file, "NORMAL")
        if gives_up:
            with pytest.raises(TimeoutError):
                opening.result(0.1)
            other.execute("COMMIT")
            opening.result(10).close()
        else:
            assert isinstance(opening.exception(10), StorageUnavailable)
    other.close()


def test_settings_that_cannot_work(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown kind of durability, and a SQLite too old for the statements used here, are refused by name."""
    with pytest.raises(InvalidField, match="SQLITE_SYNCHRONOUS"):
        open_sqlite(file, "OFF")
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(StorageUnavailable, match=r"SQLite 3\.35 or newer"):
        open_sqlite(file)
