"""A SQLite file seen from outside: locked, short of room, read behind the service's back, used by other processes."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from demo.service import ROOT
from engine.storage.sqlite import SqliteStorage
from engine.storage.sqlite.writer import Transaction, Writer
from tests.support.waiting import eventually

AMPLE = 1_000_000


@contextmanager
def locked(file: Path) -> Iterator[sqlite3.Connection]:
    """The file's write lock, held by another connection until it commits or the block ends."""
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield other
    finally:
        other.close()


def leave_room(storage: SqliteStorage, pages: int) -> None:
    """Lets the database grow by so many pages and no more: beyond, SQLite says SQLITE_FULL as for a full disk."""

    def limit(transaction: Transaction) -> None:
        [used] = transaction.connection.execute("PRAGMA page_count").fetchone()
        transaction.connection.execute(f"PRAGMA max_page_count = {used + pages}")

    storage._writer.run(limit)


def stored(file: Path, sql: str) -> list[tuple[object, ...]]:
    """What another connection reads."""
    connection = sqlite3.connect(file)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def is_sound(file: Path) -> bool:
    """Whether the file is whole, and its counters and references agree with its jobs."""
    counted = stored(file, "SELECT status, SUM(jobs) FROM job_counters GROUP BY status ORDER BY status")
    jobs = stored(file, "SELECT status, COUNT(*) FROM jobs WHERE deleted = 0 GROUP BY status ORDER BY status")
    [references] = stored(file, "SELECT COUNT(*) FROM job_references")
    [texts] = stored(file, "SELECT COALESCE(SUM(texts), 0) FROM jobs")
    return stored(file, "PRAGMA integrity_check") == [("ok",)] and counted == jobs and references == texts


def child(mode: str, file: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.support.sqlite_child", mode, str(file)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def said_by(mode: str, file: Path) -> list[str]:
    """All that the child prints; it ends by itself."""
    with child(mode, file) as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return said.splitlines()


def in_one_group(writer: Writer, operations: Sequence[Callable[[], object]]) -> "list[Future[object]]":
    """The operations, each asked for by a thread while the writer is busy, so that they share its next transaction."""
    started, gate = threading.Event(), threading.Event()

    def keep_busy(_: Transaction) -> None:
        started.set()
        gate.wait(20)

    with ThreadPoolExecutor(len(operations) + 1) as threads:
        threads.submit(writer.run, keep_busy)
        assert started.wait(10)
        asked = [threads.submit(operation) for operation in operations]
        eventually(lambda: writer._queue.qsize() == len(operations))
        gate.set()
    return asked


@contextmanager
def counted_commits(storage: SqliteStorage) -> Iterator[list[str]]:
    """The commits that the writer makes during the block, and one before it."""
    commits: list[str] = []

    def note(sql: str) -> None:
        if sql == "COMMIT":
            commits.append(sql)

    storage._writer.run(lambda transaction: transaction.connection.set_trace_callback(note))
    commits.clear()
    yield commits
