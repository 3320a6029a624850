"""Documents that replicas change together, each change in the writer's transaction."""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

import orjson

from engine.llm import JsonObject
from engine.shared import Change
from engine.storage.sqlite.connection import Readers
from engine.storage.sqlite.rows import to_ms
from engine.storage.sqlite.writer import Transaction, Writer

_READ = "SELECT body FROM shared WHERE key = ?"
_WRITE = "INSERT OR REPLACE INTO shared (key, body, written_at) VALUES (?, ?, ?)"
_FORGET = "DELETE FROM shared WHERE written_at < ?"

T = TypeVar("T")


class SqliteSharedDocuments:
    """Implements engine.shared.SharedDocuments."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers

    def change(self, key: str, change: Change[T], now: datetime) -> T:
        def operation(transaction: Transaction) -> T:
            execute = transaction.connection.execute
            row = execute(_READ, (key,)).fetchone()
            document, answer = change({} if row is None else orjson.loads(row[0]))
            body = orjson.dumps(document).decode()
            if row is None or body != row[0]:
                execute(_WRITE, (key, body, to_ms(now)))
            return answer

        return self._writer.run(operation)

    def get_many(self, keys: Sequence[str]) -> dict[str, JsonObject]:
        marks = ", ".join("?" * len(keys))
        with self._readers.borrow() as connection:
            rows = connection.execute(f"SELECT key, body FROM shared WHERE key IN ({marks})", tuple(keys)).fetchall()
        return {key: orjson.loads(body) for key, body in rows}

    def forget_idle(self, before: datetime) -> int:
        return self._writer.run(lambda transaction: transaction.connection.execute(_FORGET, (to_ms(before),)).rowcount)
