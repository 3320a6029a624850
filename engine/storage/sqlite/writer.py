"""The one thread that writes: what many threads ask for at the same time shares one transaction and one commit.

Each operation runs under a savepoint of its own, so that one which fails leaves no trace and spoils nobody else's.
Where the database itself fails (locked, full, broken), each is tried once more in a transaction of its own, so that
everyone gets the answer to his own operation. Operations must therefore be repeatable until committed: they read and
write through their transaction and nothing else.
"""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from engine.errors import StorageUnavailable
from engine.storage.sqlite.counters import Deltas
from engine.storage.sqlite.faults import is_locked, translate
from engine.storage.sqlite.usage import UsageDeltas

_MOST_AT_ONCE = 256
_ANSWER_SECONDS = 30.0

T = TypeVar("T")


@dataclass(slots=True)
class Transaction:
    """What an operation works on. `counters` and `usage` gather what it changes there; written before the commit."""

    connection: sqlite3.Connection
    counters: Deltas = field(default_factory=Deltas)
    usage: UsageDeltas = field(default_factory=UsageDeltas)

    def merge(self, other: "Transaction") -> None:
        self.counters.merge(other.counters)
        self.usage.merge(other.usage)

    def write(self) -> None:
        self.counters.write(self.connection)
        self.usage.write(self.connection)


@dataclass(slots=True)
class _Operation:
    run: Callable[[Transaction], Any]
    answer: "Future[Any]"
    result: Any = None
    error: BaseException | None = None

    def finish(self) -> None:
        if self.error is not None:
            self.answer.set_exception(self.error)
        else:
            self.answer.set_result(self.result)


class Writer:
    """Owns the writing connection. `run` may be called from any thread."""

    def __init__(self, connection: sqlite3.Connection, check: Callable[[], None]) -> None:
        """`check` is asked before each transaction and raises StorageUnavailable where the file is not there."""
        self._connection = connection
        self._check = check
        self._queue: SimpleQueue[_Operation | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="sqlite-writer", daemon=True)
        self._thread.start()

    def run(self, operation: Callable[[Transaction], T]) -> T:
        """What `operation` returns, once it is committed; raises what it raises, driver errors as ours."""
        answer: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise StorageUnavailable("the database has been closed")
            self._queue.put(_Operation(operation, answer))
        try:
            return answer.result(_ANSWER_SECONDS)
        except NoAnswer as error:
            if answer.done():  # the operation's own TimeoutError
                raise
            answer.cancel()
            raise StorageUnavailable("the database file does not answer") from error

    def close(self) -> None:
        """Finish what was asked for before, then close the connection."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        ending = False
        while not ending:
            group, ending = self._gather()
            if group:
                self._write(group)
                for operation in group:
                    operation.finish()
        self._connection.close()

    def _gather(self) -> tuple[list[_Operation], bool]:
        """All that waits, at least one; True when the end was asked for."""
        asked = self._queue.get()
        group: list[_Operation] = []
        while asked is not None:
            if asked.answer.set_running_or_notify_cancel():
                group.append(asked)
            if len(group) == _MOST_AT_ONCE:
                return group, False
            try:
                asked = self._queue.get_nowait()
            except Empty:
                return group, False
        return group, True

    def _write(self, group: Sequence[_Operation]) -> None:
        try:
            self._transact(group)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, everyone is told and the thread goes on
            self._roll_back()
            if len(group) == 1 or is_locked(error):
                _fail(group, error)
                return
            for operation in group:
                self._write([operation])

    def _transact(self, group: Sequence[_Operation]) -> None:
        self._check()
        self._connection.execute("BEGIN IMMEDIATE")
        whole = Transaction(self._connection)
        for operation in group:
            self._attempt(operation, whole)
        whole.write()
        self._connection.execute("COMMIT")

    def _attempt(self, operation: _Operation, whole: Transaction) -> None:
        """Run one operation; its own errors undo it alone, the database's pass on to undo the group."""
        transaction = Transaction(self._connection)
        operation.error = None
        self._connection.execute("SAVEPOINT operation")
        try:
            operation.result = operation.run(transaction)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 - whatever an operation raises is its caller's to see
            operation.error = translate(error)
            self._connection.execute("ROLLBACK TO operation")
        else:
            whole.merge(transaction)
        self._connection.execute("RELEASE operation")

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):  # SQLite has rolled back by itself after some errors
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _fail(group: Sequence[_Operation], cause: Exception) -> None:
    for operation in group:
        operation.error = translate(cause)
        operation.error.__cause__ = cause
