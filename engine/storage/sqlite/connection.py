"""Connections to the database file: how they are set up, and a small pool of those that only read."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, LifoQueue

from engine.errors import InvalidField, StorageUnavailable
from engine.storage.sqlite.faults import is_locked, translated

BUSY_SECONDS = 2.0
READERS = 4
_READ_WAIT_SECONDS = 4.0
_SYNCHRONOUS = ("FULL", "NORMAL")
_WAL_PAGES = 4000
_WAL_BYTES_KEPT = 64 * 1024 * 1024
_OLDEST = (3, 35, 0)


def connect(path: Path, mode: str = "rwc") -> sqlite3.Connection:
    """A connection in autocommit mode that waits BUSY_SECONDS for a lock; usable from any one thread at a time.

    `mode` rwc makes a file that is missing, rw does not.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def open_writer(path: Path, synchronous: str) -> sqlite3.Connection:
    """The connection that writes, the file in WAL mode. Several processes may open one file at the same time."""
    if synchronous not in _SYNCHRONOUS:
        raise InvalidField("SQLITE_SYNCHRONOUS", f"must be one of {', '.join(_SYNCHRONOUS)}")
    if sqlite3.sqlite_version_info < _OLDEST:
        raise StorageUnavailable(f"SQLite 3.35 or newer is needed, this Python has {sqlite3.sqlite_version}")
    with translated():
        connection = connect(path)
        try:
            _prepare(connection, synchronous)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(connection: sqlite3.Connection, synchronous: str) -> None:
    _enter_wal(connection)
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_KEPT}")
    connection.execute("PRAGMA cache_size = -32000")
    _demand_writable(connection)


def _enter_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not wait for the lock that this switch takes, so two first starts at once are sorted out here."""
    deadline = time.monotonic() + BUSY_SECONDS
    pause = threading.Event()
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not is_locked(error) or time.monotonic() > deadline:
                raise
            pause.wait(0.02)
        else:
            return


def _demand_writable(connection: sqlite3.Connection) -> None:
    """SQLite opens a file that it may only read without complaint, and refuses the first write; nothing is written."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute("PRAGMA user_version = 0")
    finally:
        connection.execute("ROLLBACK")


class Readers:
    """At most READERS connections that only read, opened when first needed. A reader never waits for the writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._free: LifoQueue[sqlite3.Connection | None] = LifoQueue()
        self._closed = False
        for _ in range(READERS):
            self._free.put(None)

    @contextmanager
    def borrow(self) -> Iterator[sqlite3.Connection]:
        """A connection for the block; driver errors leave it as ours."""
        connection = self._take()
        try:
            with translated():
                if connection is None:
                    connection = self._connect()
                yield connection
        finally:
            self._free.put(connection)

    def _take(self) -> sqlite3.Connection | None:
        if self._closed:
            raise StorageUnavailable("the database has been closed")
        try:
            return self._free.get(timeout=_READ_WAIT_SECONDS)
        except Empty as error:
            raise StorageUnavailable("all connections to the database are busy", retry_after=1.0) from error

    def _connect(self) -> sqlite3.Connection:
        connection = connect(self._path, mode="rw")
        connection.execute("PRAGMA query_only = ON")
        return connection

    def close(self) -> None:
        """Waits for the reads under way, for a while, then closes all that are free; harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        with suppress(Empty):  # a read that takes longer keeps its connection until it ends
            for _ in range(READERS):
                connection = self._free.get(timeout=_READ_WAIT_SECONDS)
                if connection is not None:
                    connection.close()
