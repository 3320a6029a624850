"""Sums over calls, written in the transaction that puts the calls on a ledger."""

import sqlite3
from collections.abc import Iterable, Iterator

import orjson

from engine.jobs.job import Call
from engine.storage.codec import attempt_from_document
from engine.storage.sqlite.conditions import Conditions
from engine.storage.sqlite.connection import Readers
from engine.usage import WIDTH, UsageKey, UsageQuery, UsageRow, grouped, key_of, sums_of

_KEY = "day, client_id, model, operation, currency"
_SUMS = (
    "calls, errors, unknown, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, "
    "input_units, output_units"
)
_AT_KEY = "client_id = ? AND day = ? AND model = ? AND operation = ? AND currency = ?"
_READ = f"SELECT {_SUMS} FROM usage WHERE {_AT_KEY}"
_UPDATE = f"UPDATE usage SET ({_SUMS}) = (?, ?, ?, ?, ?, ?, ?, ?, ?) WHERE {_AT_KEY}"
_INSERT = f"INSERT INTO usage ({_SUMS}, client_id, day, model, operation, currency) VALUES ({', '.join('?' * 14)})"
_DROP = f"DELETE FROM usage WHERE {_AT_KEY}"


class UsageDeltas:
    """What one transaction adds, gathered so that each sum is written once."""

    def __init__(self) -> None:
        self._sums: dict[UsageKey, list[int]] = {}

    def add(self, client_id: str, operation: str, calls: Iterable[Call], sign: int = 1) -> None:
        """Calls that a ledger has from now on; with `sign` -1 those that it no longer has."""
        for call in calls:
            entry = self._sums.setdefault(key_of(call, client_id, operation), [0] * WIDTH)
            for position, amount in enumerate(sums_of(call)):
                entry[position] += sign * amount

    def merge(self, other: "UsageDeltas") -> None:
        for key, sums in other._sums.items():
            entry = self._sums.setdefault(key, [0] * WIDTH)
            entry[:] = [first + second for first, second in zip(entry, sums, strict=True)]

    def write(self, connection: sqlite3.Connection) -> None:
        for key, change in self._sums.items():
            if any(change):
                _write(connection, (key.client_id, key.day, key.model, key.operation, key.currency), change)


def _write(connection: sqlite3.Connection, key: tuple[str, ...], change: list[int]) -> None:
    """Amounts of money are text: their sums may exceed 63 bits."""
    row = connection.execute(_READ, key).fetchone()
    sums = change if row is None else [int(old) + new for old, new in zip(row, change, strict=True)]
    if sums[0] == 0:
        connection.execute(_DROP, key)
    else:
        statement = _INSERT if row is None else _UPDATE
        connection.execute(statement, (*sums[:7], str(sums[7]), str(sums[8]), *key))


def calls_of(progress: str | None) -> Iterator[Call]:
    """The calls on the ledger of a job's stored progress."""
    if progress is not None:
        for entry in orjson.loads(progress)["ledger"]:
            yield from attempt_from_document(entry).calls


class SqliteUsage:
    """Implements engine.usage.UsageStore."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    def rows(self, query: UsageQuery) -> list[UsageRow]:
        wanted = Conditions(client_id=query.client_id).and_("day >= ?", query.first.isoformat())
        where = wanted.and_("day <= ?", query.last.isoformat())
        with self._readers.borrow() as connection:
            rows = connection.execute(f"SELECT {_KEY}, {_SUMS} FROM usage{where}", where.values)
            return grouped(((UsageKey(*row[:5]), [int(each) for each in row[5:]]) for row in rows), query)
