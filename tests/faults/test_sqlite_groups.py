"""What many threads ask SQLite for at the same time shares a transaction and its wait for the disk."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from engine.errors import Duplicate, StorageError
from engine.jobs.job import Job
from engine.jobs.queue import JobQuery
from engine.storage.sqlite import SqliteStorage, open_sqlite
from engine.storage.sqlite import jobs as jobs_of_sqlite
from engine.storage.sqlite.rows import row_of
from engine.storage.sqlite.writer import Transaction
from tests.support.factories import make_client, make_job, make_jobs
from tests.support.sqlite_file import counted_commits, in_one_group, is_sound


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "faults.db"


@pytest.fixture
def storage(file: Path) -> Iterator[SqliteStorage]:
    """A storage as the service opens it by default: every commit waits for the disk."""
    opened = open_sqlite(file)
    yield opened
    opened.close()


"""What many threads ask for at the same time shares a transaction and its wait for the disk."""


def test_many_inserts_share_a_commit(file: Path, storage: SqliteStorage) -> None:
    """Fifty threads that insert while the writer is busy wait for one commit, and each gets its own answer."""
    jobs = make_jobs(50)
    with counted_commits(storage) as commits:
        asked = in_one_group(storage._writer, [partial(storage.jobs.insert, [job]) for job in jobs])
    assert [one.exception() for one in asked] == [None] * 50
    assert len(commits) == 2  # the one that kept the writer busy, and theirs
    assert storage.jobs.get_many([job.id for job in jobs]).keys() == {job.id for job in jobs}
    assert is_sound(file)


def test_a_refused_operation_is_refused_alone(file: Path, storage: SqliteStorage) -> None:
    """A duplicate and an operation that fails after having written are undone; the rest of their commit stands."""
    client = make_client()
    storage.clients.add(client)
    jobs, lost = make_jobs(10), make_job()

    def fail_late() -> None:
        storage._writer.run(lambda transaction: insert_and_fail(transaction, lost))

    operations = [partial(storage.jobs.insert, [job]) for job in jobs]
    operations[3:3] = [partial(storage.clients.add, client), fail_late]
    with counted_commits(storage) as commits:
        errors = [one.exception() for one in in_one_group(storage._writer, operations)]
    assert [type(error) for error in errors[3:5]] == [Duplicate, KeyError]
    assert [*errors[:3], *errors[5:]] == [None] * 10
    assert len(commits) == 2
    assert storage.jobs.get(lost.id) is None
    assert storage.jobs.count(JobQuery()) == 10
    assert is_sound(file)


def test_an_error_of_the_database_is_one_operations_own(file: Path, storage: SqliteStorage) -> None:
    """Where the database itself fails under one operation, the others of its group are done all the same."""
    jobs = make_jobs(10)
    broken = partial(storage._writer.run, lambda transaction: transaction.connection.execute("SELECT nothing"))
    operations = [partial(storage.jobs.insert, [job]) for job in jobs]
    asked = in_one_group(storage._writer, [*operations[:5], broken, *operations[5:]])
    errors = [one.exception() for one in asked]
    assert type(errors.pop(5)) is StorageError
    assert errors == [None] * 10
    assert storage.jobs.count(JobQuery()) == 10
    assert is_sound(file)


def insert_and_fail(transaction: Transaction, job: Job) -> None:
    """What an insert does, and then something that is no error of the database's."""
    jobs_of_sqlite._insert(transaction, [row_of(job, job.metadata.created_at)], {})
    raise KeyError(job.id)
