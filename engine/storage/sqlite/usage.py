"""Sums over calls, written in the transaction that puts the calls on a ledger."""

import sqlite3
from collections.abc import Iterable, Sequence
from operator import itemgetter

import orjson

from engine.storage.codec import Document
from engine.storage.sqlite.conditions import Conditions
from engine.storage.sqlite.connection import Readers
from engine.usage import UsageKey, UsageQuery, UsageRow, grouped

_KEY = "day, client_id, model, operation, currency"
_SUMS = (
    "calls, errors, unknown, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, "
    "input_units, output_units"
)
_AT_KEY = "client_id = ? AND day = ? AND model = ? AND operation = ? AND currency = ?"
_READ = f"SELECT {_SUMS} FROM usage WHERE {_AT_KEY}"
_UPDATE = f"UPDATE usage SET ({_SUMS}) = (?, ?, ?, ?, ?, ?, ?, ?, ?) WHERE {_AT_KEY}"
_INSERT = f"INSERT INTO usage ({_SUMS}, client_id, day, model, operation, currency) VALUES ({', '.join('?' * 14)})"
_AMOUNTS = itemgetter(
    *("inputTokens", "outputTokens", "cachedInputTokens", "reasoningTokens", "inputCost", "outputCost")
)
_DROP = f"DELETE FROM usage WHERE {_AT_KEY}"


class UsageDeltas:
    """What one transaction adds, gathered so that each sum is written once."""

    def __init__(self) -> None:
        self._parts: dict[UsageKey, list[Sequence[int]]] = {}

    def add(self, client_id: str, operation: str, calls: Iterable[Document]) -> None:
        """Calls, as the codec writes them, that a ledger has from now on."""
        for call in calls:
            self._parts.setdefault(_key(call, client_id, operation), []).append(_sums(call))

    def remove(self, client_id: str, operation: str, calls: Iterable[Document]) -> None:
        """Calls that a ledger no longer has, or not for that operation."""
        for call in calls:
            negative = [-amount for amount in _sums(call)]
            self._parts.setdefault(_key(call, client_id, operation), []).append(negative)

    def merge(self, other: "UsageDeltas") -> None:
        for key, parts in other._parts.items():
            self._parts.setdefault(key, []).extend(parts)

    def write(self, connection: sqlite3.Connection) -> None:
        for key, parts in self._parts.items():
            change = [sum(amounts) for amounts in zip(*parts, strict=True)]
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


def _key(call: Document, client_id: str, operation: str) -> UsageKey:
    """The day is the first part of an instant's text, or an instant's own."""
    started_at = call["startedAt"]
    day = started_at[:10] if isinstance(started_at, str) else started_at.date().isoformat()
    return UsageKey(day, client_id, call["model"], operation, call["currency"] or "")


def _sums(call: Document) -> Sequence[int]:
    """A call's part in the sums of its key; an unknown count or cost adds nothing."""
    outcome = call["outcome"]
    return (1, int(outcome == "error"), int(outcome == "unknown"), *(amount or 0 for amount in _AMOUNTS(call)))


def calls_of(progress: str | None) -> list[Document]:
    """The calls on the ledger of a job's stored progress."""
    if progress is None:
        return []
    return [call for entry in orjson.loads(progress)["ledger"] for call in entry["calls"]]


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
