"""Contents of files, a row for each chunk."""

import sqlite3

from engine.storage.sqlite.connection import Readers
from engine.storage.sqlite.writer import Transaction, Writer

_PUT = "INSERT OR REPLACE INTO file_chunks (file_id, number, data) VALUES (?, ?, ?)"
_DROP = "DELETE FROM file_chunks WHERE rowid IN (SELECT rowid FROM file_chunks WHERE file_id = ? LIMIT 16)"
"""Few at a time: until the end of a transaction SQLite keeps in memory what it would need to undo it."""


def make_table(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE file_chunks (file_id TEXT NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL, "
        "PRIMARY KEY (file_id, number))"
    )


class SqliteFileContents:
    """Implements engine.records.files.FileContents."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers

    def put(self, file_id: str, number: int, data: bytes) -> None:
        self._run(_PUT, (file_id, number, data))

    def get(self, file_id: str, number: int) -> bytes | None:
        statement = "SELECT data FROM file_chunks WHERE file_id = ? AND number = ?"
        with self._readers.borrow() as connection:
            row = connection.execute(statement, (file_id, number)).fetchone()
        return None if row is None else bytes(row[0])

    def drop(self, file_id: str) -> None:
        while self._run(_DROP, (file_id,)) > 0:
            continue

    def _run(self, statement: str, values: tuple[object, ...]) -> int:
        """How many rows it changed."""

        def operation(transaction: Transaction) -> int:
            return transaction.connection.execute(statement, values).rowcount

        return self._writer.run(operation)
