"""Files that are not what the service needs: said by name at the start, and never taken for an empty database."""

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from demo.service import ROOT
from engine.errors import StorageCorrupt, StorageError, StorageUnavailable
from engine.jobs.changes import deleted
from engine.jobs.job import totals_of
from engine.jobs.queue import JobQuery, Page
from engine.records.canaries import Canary
from engine.records.store import Where
from engine.storage.sqlite import SqliteStorage, open_sqlite
from engine.usage import UsageQuery
from tests.support.factories import NOW, make_attempt, make_call, make_flow, make_jobs
from tests.support.sqlite_file import said_by


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "faults.db"


@pytest.fixture
def storage(file: Path) -> Iterator[SqliteStorage]:
    """A storage as the service opens it by default: every commit waits for the disk."""
    opened = open_sqlite(file)
    yield opened
    opened.close()


"""What stands at the path is not what the service needs."""


def test_a_file_that_is_no_database(file: Path) -> None:
    """It is refused by name, with what to do, and left as it is."""
    file.write_text("a letter to a friend\n" * 500)
    with pytest.raises(StorageCorrupt, match=r"not a database.*put a copy in its place, or name another") as refusal:
        open_sqlite(file)
    assert str(file) in str(refusal.value)
    assert file.read_text() == "a letter to a friend\n" * 500


def test_the_service_says_so_and_ends(file: Path) -> None:
    """The service does not come up on such a file: exit code 1 and one line that names file and setting."""
    file.write_text("a letter to a friend\n" * 500)
    secrets = {"DOCS_SECRET": "d" * 20, "API_KEY_PEPPER": "p" * 20, "ADMIN_API_KEY": "a" * 20}
    ended = subprocess.run(
        [sys.executable, str(ROOT / "main_app.py"), "--host", "127.0.0.1", "--port", "0"],
        env={**os.environ, **secrets, "DB_CONNECTION_STRING": f"sqlite:///{file}"},
        cwd=file.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert f"(DB_CONNECTION_STRING names {file})" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_damaged_database_is_not_taken_for_an_empty_one(file: Path) -> None:
    """Pages that hold rubbish are an error for who needs them, never an empty list."""
    storage = open_sqlite(file)
    storage.jobs.insert(make_jobs(500))
    storage.close()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] + b"\xa5" * (len(whole) - len(whole) // 2))
    damaged = open_sqlite(file)
    try:
        with pytest.raises(StorageCorrupt, match="damaged"):
            damaged.jobs.find(JobQuery(), Page(limit=500))
    finally:
        damaged.close()


@pytest.mark.parametrize("folder_writable", [False, True])
def test_a_file_that_may_only_be_read(folder_writable: bool) -> None:
    """It is refused at once with the rights that are missing, although SQLite itself would open it."""
    with tempfile.TemporaryDirectory(prefix="metasync-") as folder:
        file = Path(folder, "faults.db")
        open_sqlite(file).close()
        file.chmod(0o444)
        Path(folder).chmod(0o777 if folder_writable else 0o555)
        [said] = said_by("open", file)
        Path(folder).chmod(0o700)
    assert said.startswith("StorageUnavailable the database file cannot be written")
    assert "needs the right to write to it and to its folder" in said
    assert str(file) in said


def test_a_folder_that_cannot_be_made(file: Path) -> None:
    """A path that leads through a file is refused by name."""
    file.write_text("")
    with pytest.raises(StorageUnavailable, match=r"folder of the database file cannot be made.*faults.db"):
        open_sqlite(file / "below" / "metasync.db")


def test_a_file_of_a_newer_metasync(file: Path, storage: SqliteStorage) -> None:
    """A schema from the future is refused, not guessed at."""
    storage._writer.run(lambda transaction: transaction.connection.execute("PRAGMA user_version = 99"))
    with pytest.raises(StorageError, match="newer Metasync") as refusal:
        open_sqlite(file)
    assert not isinstance(refusal.value, (StorageUnavailable, StorageCorrupt))


def test_a_file_of_before_the_sums_of_calls(file: Path) -> None:
    """A file made by an earlier version gets the sums of all calls on its jobs' ledgers, deleted jobs' too."""
    storage = open_sqlite(file)
    calls = (make_call(), make_call(model="other"))
    jobs = make_jobs(3, totals=totals_of(calls), ledger=(make_attempt(1, calls=calls),))
    storage.jobs.insert([*jobs, *make_jobs(2)])
    storage.jobs.compare_and_set([deleted(jobs[0], NOW, by="admin")], NOW)
    query = UsageQuery(first=NOW.date(), last=NOW.date())
    expected = storage.usage.rows(query)
    storage.close()
    plain = sqlite3.connect(file)
    later = ("usage", "streams", "runs", "files", "batches", "file_chunks", "run_parts", "datasets", "dataset_parts")
    later += ("evaluators", "evaluations", "evaluation_parts")
    plain.executescript("".join(f"DROP TABLE {name}; " for name in later) + "PRAGMA user_version = 2")
    plain.close()
    storage = open_sqlite(file)
    assert storage.usage.rows(query) == expected
    assert [row.calls for row in expected] == [3, 3]
    storage.close()


def test_a_file_of_before_canaries(file: Path) -> None:
    """Its flows are still there, without canaries, and get them as new ones do."""
    storage = open_sqlite(file)
    flow = make_flow()
    storage.prompt_flows.add(flow)
    storage.close()
    plain = sqlite3.connect(file)
    plain.execute("DROP INDEX prompt_flows_by_canaryopen")
    plain.execute('ALTER TABLE prompt_flows DROP COLUMN "canaryOpen"')
    fields = ", ".join(f"'$.{name}'" for name in ("canaryOpen", "canaries", "canaryEvaluator", "canarySample", "lease"))
    plain.execute(f"UPDATE prompt_flows SET body = json_remove(body, {fields})")
    plain.execute("PRAGMA user_version = 10")
    plain.commit()
    plain.close()
    storage = open_sqlite(file)
    assert storage.prompt_flows.get(flow.id) == flow
    running = Where(equals={"canaryOpen": [True]})
    assert storage.prompt_flows.find(running, Page(limit=10)) == []
    canary = Canary(id="t", prompt_id="c", replaces="a" * 24, share=0.25, since=NOW)
    assert storage.prompt_flows.compare_and_set(replace(flow, canaries=(canary,)))
    assert [each.id for each in storage.prompt_flows.find(running, Page(limit=10))] == [flow.id]
    storage.close()


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_that_goes_away_in_use(file: Path, storage: SqliteStorage, how: str) -> None:
    """Writes into a file that nobody can find any more are refused, and readiness says so."""
    storage.jobs.insert(make_jobs(2))
    file.rename(file.with_name("elsewhere.db"))
    if how == "replaced":
        file.write_bytes(file.with_name("elsewhere.db").read_bytes())
    for operation in (storage.ping, partial(storage.jobs.insert, make_jobs(1))):
        with pytest.raises(StorageUnavailable, match="gone" if how == "removed" else "replaced"):
            operation()
    file.with_name("elsewhere.db").rename(file)
    storage.ping()
    storage.jobs.insert(make_jobs(1))
    assert storage.jobs.count(JobQuery()) == 3
