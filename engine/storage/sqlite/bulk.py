"""Many rows into a table, with few statements."""

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any

_AT_ONCE = (100, 10, 1)


class BulkInsert:
    """Inserts rows by statements of up to a hundred each; rows that are there already stay as they are.

    Each step of a statement gives the interpreter's lock up, and where other threads are busy it is won back only when
    their turn is over: row by row, a thousand rows were measured to take twenty times as long beside one busy thread.
    """

    def __init__(self, table: str, columns: str, *, width: int) -> None:
        """`columns` are so many names as the head of an INSERT has them."""
        row = f"({', '.join('?' * width)})"
        self._statements = {
            count: f"INSERT INTO {table} ({columns}) VALUES {', '.join([row] * count)} ON CONFLICT DO NOTHING"
            for count in _AT_ONCE
        }

    def run(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> int:
        """How many rows were not there."""
        added, start = 0, 0
        for count, statement in self._statements.items():
            while len(rows) - start >= count:
                values = list(chain.from_iterable(rows[start : start + count]))
                added += connection.execute(statement, values).rowcount
                start += count
        return added
