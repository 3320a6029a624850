"""Every query of the SQLite back-end goes through an index: SQLite's own plans say so."""

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine.jobs.outcome import Completed
from engine.jobs.queue import ClaimFilter, ClaimRequest, Hold, JobQuery, JobQueue, Page
from engine.jobs.states import JobState
from engine.records.store import PromptStore, RecordStore, WorkerStore
from engine.records.streams import StreamStore
from engine.shared import SharedDocuments
from engine.storage.sqlite import SqliteStorage, open_sqlite
from engine.usage import UsageStore
from tests.support.factories import CLIENT, MINUTE, NOW, OTHER_CLIENT, make_jobs, settlement
from tests.support.faulty import Faulty, Plan
from tests.support.storage_tour import public_methods, tour

PLANNED = ("SELECT", "UPDATE", "DELETE")
SCAN, WALK, SORT, MADE_UP = "scan", "walk", "sort", "index made for one query"
"""What a plan should not have: a table read whole; one read in an index's order until enough was found; rows sorted in
memory; an index built for one query and thrown away."""

OVER_ALL = "an admin's, over all clients: reads one row for each kind of job of a client"
FEW = "there are few of them"
COUNTED = "counts all live records of a kind, of which there are few"
PAGE = "a page in insertion order is read up to its end"
OF_OPTIMIZER = ("datasets", "dataset_parts", "evaluators", "evaluations", "evaluation_parts", "run_parts")
JUSTIFIED = {
    ("jobs.find", "jobs", WALK): "a page of all clients' jobs, an admin's, is read in id order up to its end",
    (
        "jobs.find",
        "jobs",
        SORT,
    ): "an admin lists one reference's jobs of all clients; one page is kept in memory",
    ("jobs.count", "jobs", SCAN): "an admin counts jobs of one priority: the port says that is not flat",
    ("jobs.summary", "jobs", SCAN): "an admin sums up jobs of one priority: the port says that is not flat",
    ("jobs.count", "job_counters", SCAN): OVER_ALL,
    (
        "jobs.summary",
        "job_counters",
        SCAN,
    ): OVER_ALL,
    ("clients.find", "clients", WALK): PAGE,
    ("models.find", "models", WALK): PAGE,
    ("models.find", "models", SORT): f"those with the names that one request gives: {FEW}",
    ("prompts.find", "prompts", WALK): PAGE,
    ("prompts.find", "prompts", SORT): f"those with the names that one request gives: {FEW}",
    ("prompt_flows.find", "prompt_flows", WALK): PAGE,
    ("workers.find", "workers", WALK): PAGE,
    ("runs.find", "runs", WALK): PAGE,
    (
        "streams.find",
        "streams",
        WALK,
    ): "a page of all clients' streams, an admin's, is read in their order up to its end",
    ("streams.count", "streams", SCAN): "an admin counts all streams, in an index",
    ("streams.by_status", "streams", SCAN): "an admin sums up all streams",
    ("streams.by_group", "streams", SCAN): "an admin sums up all streams",
    ("streams.by_status", "streams", SORT): "three groups at most",
    ("streams.by_group", "streams", SORT): "sums are kept in memory for each group; no text is read",
    ("clients.count", "clients", SCAN): COUNTED,
    ("models.count", "models", SCAN): COUNTED,
    ("prompts.count", "prompts", SCAN): COUNTED,
    ("prompt_flows.count", "prompt_flows", SCAN): COUNTED,
    ("runs.count", "runs", SCAN): COUNTED,
    ("workers.count", "workers", SCAN): COUNTED,
    **{(f"{kind}.find", kind, WALK): PAGE for kind in OF_OPTIMIZER},
    **{(f"{kind}.count", kind, SCAN): f"{COUNTED}; parts are counted by nobody" for kind in OF_OPTIMIZER},
    **{(f"{kind}.find", kind, SORT): f"the versions of several names: {FEW}" for kind in ("datasets", "evaluators")},
    ("ping", "jobs", WALK): "a sign of life: one row, whichever",
}
HOT = frozenset(
    f"jobs.{name}" for name in public_methods(JobQueue) - {"find", "count", "summary", "forget_expired"}
) | {"clients.get", "models.get_many", "prompts.get_many", "workers.running", "workers.renew"}
"""What every job, poll and heartbeat asks: nothing may be justified here."""
SEEKS = (
    "client_id = ?",
    'WHERE "clientId" = ?',
    '"keyLookup" IN (?)',
    '"name" IN (',
    '"status" IN (',
    '"clientId" IN (',
)
"""Conditions that lead to the rows: what has one of these and still reads on is not justified by what has none."""

_SCANNED = re.compile(r"SCAN (?:TABLE )?(\w+)(?: AS \w+)?( USING .*)?$")
_ALIAS = re.compile(r"(?:FROM|JOIN) (\w+) (\w)\b")
_MADE_UP = re.compile(r"AUTOMATIC .*INDEX")


class Statement(NamedTuple):
    """What was sent to SQLite, and by which operation of the storage."""

    sql: str
    values: tuple[Any, ...]
    asked_by: str


class Watch:
    """Keeps the statements of all connections made under it, and counts the steps of SQLite's machine."""

    def __init__(self) -> None:
        self.seen: list[Statement] = []
        self.steps = 0
        self.asked_by: Callable[[], str] = str

    def note(self, sql: str, values: Sequence[Any]) -> None:
        if sql.startswith(PLANNED):
            self.seen.append(Statement(sql, tuple(values), self.asked_by()))

    def step(self) -> int:
        self.steps += 1
        return 0


class Watched(sqlite3.Connection):
    """A connection under a watch."""

    def __init__(self, watch: Watch, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.watch = watch
        self.set_progress_handler(watch.step, 1)

    def execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        self.watch.note(sql, values)
        return super().execute(sql, values)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> sqlite3.Cursor:
        kept = list(rows)
        for row in kept[:1]:
            self.watch.note(sql, row)
        return super().executemany(sql, kept)


@contextmanager
def watched_storage(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[SqliteStorage, Watch]]:
    watch = Watch()
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=partial(Watched, watch)))
    storage = open_sqlite(path, "NORMAL")
    try:
        yield storage, watch
    finally:
        storage.close()


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[SqliteStorage, Watch]]:
    """An open storage, and what its connections do."""
    with watched_storage(tmp_path / "watched.db", monkeypatch) as pair:
        yield pair


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of another one to the same file, made before anything is watched."""
    connection = sqlite3.connect(tmp_path / "watched.db", check_same_thread=False)
    yield connection
    connection.close()


def faults_of(plain: sqlite3.Connection, statement: Statement) -> Iterator[tuple[str, str]]:
    """Tables and what is wrong with how the statement reads them, as SQLite plans it with the values it had."""
    plan = [row[3] for row in plain.execute(f"EXPLAIN QUERY PLAN {statement.sql}", statement.values)]
    names = {alias: table for table, alias in _ALIAS.findall(statement.sql)}
    sorts = [line for line in plan if "USE TEMP B-TREE" in line]
    for line in plan:
        scanned = _SCANNED.match(line)
        if scanned is not None and "VIRTUAL TABLE" not in line:
            table, by_index = scanned.groups()
            stops = "LIMIT ?" in statement.sql or "LIMIT 1" in statement.sql
            yield names.get(table, table), WALK if by_index and stops and not sorts else SCAN
        if _MADE_UP.search(line):
            yield "", MADE_UP
    if sorts:
        yield _main_table(statement.sql), SORT


def _main_table(sql: str) -> str:
    """The table whose rows a statement answers or changes."""
    found = re.search(r"JOIN (\w+)", sql) or re.search(r"(?:FROM|UPDATE) (\w+)", sql)
    assert found is not None
    return found.group(1)


def unindexed(
    plain: sqlite3.Connection, statements: Iterable[Statement]
) -> dict[tuple[str, str, str], list[Statement]]:
    """Statements by who asked, the table and what is wrong."""
    found: dict[tuple[str, str, str], list[Statement]] = {}
    for statement in {(each.sql, each.asked_by): each for each in statements}.values():
        for table, fault in faults_of(plain, statement):
            found.setdefault((statement.asked_by, table, fault), []).append(statement)
    return found


def under_names(storage: SqliteStorage, watch: Watch) -> Faulty:
    """The storage, its operations noted by name as they go through."""
    named = Faulty(storage, Plan())
    named.ping = lambda: named.run("ping", storage.ping)
    watch.asked_by = lambda: named.log[-1] if named.log else "opening"
    return named


def test_every_query_goes_through_an_index(plain: sqlite3.Connection, watched: tuple[SqliteStorage, Watch]) -> None:
    """A run of every operation reads no table whole and sorts nothing in memory, but for what is listed."""
    storage, watch = watched
    watch.seen.clear()
    called = tour(under_names(storage, watch))
    assert called["jobs"] == public_methods(JobQueue)
    assert called["records"] == public_methods(RecordStore)
    assert called["prompts"] == public_methods(PromptStore)
    assert called["workers"] == public_methods(WorkerStore)
    assert called["shared"] == public_methods(SharedDocuments)
    assert called["usage"] == public_methods(UsageStore)
    assert called["streams"] == public_methods(StreamStore)

    found = unindexed(plain, watch.seen)

    assert {key: statements for key, statements in found.items() if key not in JUSTIFIED} == {}
    assert set(JUSTIFIED) - set(found) == set()
    whole = [each.sql for (_, _, fault), statements in found.items() if fault != SORT for each in statements]
    assert [sql for sql in whole if any(condition in sql for condition in SEEKS)] == []


def test_nothing_is_justified_on_the_hot_paths() -> None:
    """What workers and the acceptance of jobs ask has no exception in the list."""
    assert HOT & {asked_by for asked_by, _, _ in JUSTIFIED} == set()


BAD = {
    "SELECT id FROM jobs WHERE model = ?": ("jobs", SCAN),
    "SELECT id FROM jobs WHERE model = ? ORDER BY id": ("jobs", SCAN),
    "SELECT id FROM jobs WHERE model = ? ORDER BY id LIMIT 1": ("jobs", WALK),
    "SELECT id FROM jobs WHERE client_id = ? AND deleted = 0 ORDER BY updated_at LIMIT 1": ("jobs", SORT),
    "SELECT j.id FROM jobs j WHERE j.client_job_id = ?": ("jobs", SCAN),
    "UPDATE jobs SET priority = 1 WHERE model = ?": ("jobs", SCAN),
    "DELETE FROM idempotency WHERE fingerprint = ?": ("idempotency", SCAN),
    "SELECT a.text FROM jobs b JOIN job_references a ON a.priority = b.priority WHERE b.id = ?": (
        "job_references",
        SCAN,
    ),
    "SELECT COUNT(*) FROM jobs b CROSS JOIN models a ON a.body = b.body WHERE b.client_id = ?": ("", MADE_UP),
}


@pytest.mark.parametrize("sql", BAD)
def test_a_bad_query_is_found(plain: sqlite3.Connection, watched: tuple[SqliteStorage, Watch], sql: str) -> None:
    """The check would notice: each of these statements, sent as the back-end sends its own, is reported."""
    storage, watch = watched
    watch.seen.clear()
    with storage.jobs._readers.borrow() as connection:
        connection.execute("PRAGMA query_only = OFF")
        connection.execute(sql, ("m",))
    assert BAD[sql] in {key[1:] for key in unindexed(plain, watch.seen)}


def _backlog(storage: SqliteStorage, depth: int) -> None:
    for _ in range(depth // 100):
        storage.jobs.insert(make_jobs(50, client_id=CLIENT, client_reference={"team": "red"}))
        storage.jobs.insert(make_jobs(50, client_id=OTHER_CLIENT, operation="translate", due_at=NOW + MINUTE))


def _request(**wanted: Any) -> ClaimRequest:
    return ClaimRequest(
        filter=ClaimFilter(client_id=CLIENT, **wanted), owner="o", expires_at=NOW + 10 * MINUTE, limit=10
    )


def _hold_and_settle(storage: SqliteStorage) -> None:
    held = storage.jobs.claim(_request(), NOW)
    storage.jobs.extend([Hold(job.id, job.token) for job in held], NOW + 11 * MINUTE, NOW)
    assert all(storage.jobs.settle([settlement(job, Completed(result={})) for job in held], NOW))


FLAT: dict[str, Callable[[SqliteStorage], object]] = {
    "claim, extend, settle": _hold_and_settle,
    "claim by operation": lambda storage: storage.jobs.claim(_request(operation="summarize"), NOW),
    "claim by model": lambda storage: storage.jobs.claim(_request(model="gpt-test"), NOW),
    "claim by reference": lambda storage: storage.jobs.claim(_request(references=("team=red",)), NOW),
    "claim of nothing": lambda storage: storage.jobs.claim(_request(operation="none"), NOW),
    "claim of an unknown reference": lambda storage: storage.jobs.claim(_request(references=("a=b",)), NOW),
    "waiting clients": lambda storage: storage.jobs.waiting_clients(ClaimFilter(), None, 10),
    "waiting clients by reference": lambda storage: storage.jobs.waiting_clients(
        ClaimFilter(references=("team=red",)), None, 10
    ),
    "nothing due": lambda storage: storage.jobs.promote(NOW, 100),
    "promote": lambda storage: storage.jobs.promote(NOW + 2 * MINUTE, 10),
    "nothing expired": lambda storage: storage.jobs.expired(NOW, 100),
    "next due": lambda storage: storage.jobs.next_due(),
    "summary": lambda storage: storage.jobs.summary(JobQuery(client_id=CLIENT)),
    "count": lambda storage: storage.jobs.count(JobQuery(status=JobState.PENDING)),
    "page": lambda storage: storage.jobs.find(JobQuery(client_id=CLIENT), Page(limit=20)),
    "insert": lambda storage: storage.jobs.insert(make_jobs(10, client_reference={"team": "red"})),
}


def _steps(path: Path, depth: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What each operation costs beside so many jobs, in steps of SQLite's machine."""
    costs = {}
    with monkeypatch.context() as patched, watched_storage(path, patched) as (storage, watch):
        _backlog(storage, depth)
        for name, operation in FLAT.items():
            before = watch.steps
            operation(storage)
            costs[name] = watch.steps - before
    return costs


def test_the_hot_paths_are_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside ten times as many jobs every operation takes the same number of steps."""
    shallow = _steps(tmp_path / "shallow.db", 200, monkeypatch)
    deep = _steps(tmp_path / "deep.db", 2000, monkeypatch)
    assert all(shallow.values())
    assert {name: (cost, deep[name]) for name, cost in shallow.items() if deep[name] > 1.02 * cost + 20} == {}


def test_an_operation_that_is_not_flat_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The measure would notice: an admin's count by priority, which reads every job, is far from flat."""
    monkeypatch.setitem(FLAT, "by priority", lambda storage: storage.jobs.count(JobQuery(priority=5)))
    shallow = _steps(tmp_path / "shallow.db", 200, monkeypatch)
    deep = _steps(tmp_path / "deep.db", 2000, monkeypatch)
    assert deep["by priority"] > 5 * shallow["by priority"]
