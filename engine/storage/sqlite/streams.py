"""Streams on SQLite: columns for what is queried and added up, `body` for the rest, `texts` for what may be long."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from engine.jobs.queue import Page
from engine.records.streams import OPERATION, Stream, StreamQuery, StreamSums
from engine.storage.codec import Document
from engine.storage.sqlite.conditions import Conditions
from engine.storage.sqlite.connection import Readers
from engine.storage.sqlite.rows import from_ms, json_of, to_ms
from engine.storage.sqlite.writer import Transaction, Writer
from engine.storage.stream_codec import SUMS, stream_from_document, stream_to_document, sums_of

_COLUMNS = ("clientId", "model", "status", "createdAt", "group", "references", "leaseOwner", "leaseUntil", "revision")
_MONEY = ("currency", "otherCurrency", *SUMS)
_TEXTS = ("userPrompt", "chat", "text", "answer")
_NAMES = ("id", *_COLUMNS, *_MONEY, "body", "texts")
_QUOTED = ", ".join(f'"{name}"' for name in _NAMES)
_INSERT = f"INSERT OR IGNORE INTO streams ({_QUOTED}) VALUES ({', '.join('?' * len(_NAMES))})"
_REPLACE = f"UPDATE streams SET ({_QUOTED}) = ({', '.join('?' * len(_NAMES))}) WHERE id = ? AND revision = ?"
_OLD = "SELECT body FROM streams WHERE id = ? AND revision = ?"
_LEAN = 'id, revision, status, "leaseOwner", "leaseUntil", body, NULL'
_WHOLE = 'id, revision, status, "leaseOwner", "leaseUntil", body, texts'
_RENEW = 'UPDATE streams SET "leaseUntil" = ? WHERE "leaseOwner" = ?'
_EXPIRED = f'SELECT {_WHOLE} FROM streams WHERE "leaseUntil" <= ? ORDER BY "leaseUntil" LIMIT ?'
_SUMMED = ", ".join(f'COALESCE(SUM("{name}"), 0) AS "{name}"' for name in SUMS)
_GROUPED = (
    f'SELECT MIN(id) AS "sampleId", MIN(status) AS status, COUNT(*) AS count, {_SUMMED}, '
    'MIN(currency) AS currency, MAX("otherCurrency") AS "otherCurrency" FROM streams'
)


class SqliteStreams:
    """Implements engine.records.streams.StreamStore."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers

    def add(self, stream: Stream) -> None:
        row = _row(stream_to_document(stream))
        self._writer.run(lambda transaction: transaction.connection.execute(_INSERT, row).rowcount)

    def get(self, stream_id: str) -> Stream | None:
        found = self._read(f"SELECT {_WHOLE} FROM streams WHERE id = ?", (_storable(stream_id),))
        return found[0] if found else None

    def get_many(self, stream_ids: Sequence[str]) -> dict[str, Stream]:
        wanted = orjson.dumps([_storable(stream_id) for stream_id in stream_ids]).decode()
        statement = f"SELECT {_LEAN} FROM streams WHERE id IN (SELECT value FROM json_each(?))"
        return {stream.id: stream for stream in self._read(statement, (wanted,))}

    def end(self, stream: Stream) -> bool:
        document = {**stream_to_document(stream), "revision": stream.revision + 1}
        row, key = _row(document), (stream.id, stream.revision)

        def operation(transaction: Transaction) -> bool:
            old = transaction.connection.execute(_OLD, key).fetchone()
            if old is None:
                return False
            transaction.usage.remove(stream.client_id, OPERATION, orjson.loads(old[0])["calls"])
            transaction.usage.add(stream.client_id, OPERATION, document["calls"])
            transaction.connection.execute(_REPLACE, (*row, *key))
            return True

        return self._writer.run(operation)

    def renew(self, owner: str, expires_at: datetime) -> int:
        values = (to_ms(expires_at), owner)
        return self._writer.run(lambda transaction: transaction.connection.execute(_RENEW, values).rowcount)

    def expired(self, now: datetime, limit: int) -> list[Stream]:
        return self._read(_EXPIRED, (to_ms(now), limit))

    def find(self, query: StreamQuery, page: Page) -> list[Stream]:
        where, direction = _where(query), "DESC" if page.newest_first else "ASC"
        order = f'ORDER BY "createdAt" {direction}, id {direction} LIMIT ? OFFSET ?'
        return self._read(f"SELECT {_LEAN} FROM streams{where} {order}", (*where.values, page.limit, page.skip))

    def count(self, query: StreamQuery) -> int:
        where = _where(query)
        with self._readers.borrow() as connection:
            [total] = connection.execute(f"SELECT COUNT(*) FROM streams{where}", where.values).fetchone()
        return int(total)

    def by_status(self, query: StreamQuery) -> list[StreamSums]:
        where = _where(query)
        return self._sums(f"{_GROUPED}{where} GROUP BY status", where.values)

    def by_group(self, query: StreamQuery, limit: int) -> list[StreamSums]:
        where = _where(query)
        order = 'GROUP BY "group" ORDER BY COUNT(*) DESC, MIN(id) LIMIT ?'
        return self._sums(f"{_GROUPED}{where} {order}", (*where.values, limit))

    def _sums(self, statement: str, values: tuple[Any, ...]) -> list[StreamSums]:
        with self._readers.borrow() as connection:
            cursor = connection.execute(statement, values)
            names = [column[0] for column in cursor.description]
            return [sums_of(dict(zip(names, row, strict=True))) for row in cursor]

    def _read(self, statement: str, values: tuple[Any, ...]) -> list[Stream]:
        with self._readers.borrow() as connection:
            return [_stream(row) for row in connection.execute(statement, values).fetchall()]


def _row(document: Document) -> tuple[Any, ...]:
    """The values of _NAMES."""
    apart = {*_COLUMNS, *_MONEY, *_TEXTS, "_id"}
    columns = {
        **document,
        "id": document["_id"],
        "createdAt": to_ms(document["createdAt"]),
        "leaseUntil": None if document["leaseUntil"] is None else to_ms(document["leaseUntil"]),
        "references": orjson.dumps(document["references"]).decode(),
        "body": json_of({name: value for name, value in document.items() if name not in apart} | _named(document)),
        "texts": json_of({name: document[name] for name in _TEXTS}),
    }
    return tuple(columns[name] for name in _NAMES)


def _named(document: Document) -> Document:
    return {name: document[name] for name in ("clientId", "model")}


def _stream(row: tuple[Any, ...]) -> Stream:
    stream_id, revision, status, owner, until, body, texts = row
    document = {**orjson.loads(body), **({} if texts is None else orjson.loads(texts))}
    document |= {"_id": stream_id, "revision": revision, "status": status, "leaseOwner": owner}
    document["leaseUntil"] = None if until is None else from_ms(until)
    return stream_from_document(document)


def _where(query: StreamQuery) -> Conditions:
    where = Conditions(**{'"clientId"': query.client_id, "model": query.model, "status": query.status})
    if query.since is not None:
        where.and_('"createdAt" >= ?', to_ms(query.since))
    if query.until is not None:
        where.and_('"createdAt" <= ?', to_ms(query.until))
    for text in query.references:
        where.and_('EXISTS (SELECT 1 FROM json_each("references") WHERE value = ?)', text)
    return where


def _storable(stream_id: str) -> str:
    """Lone surrogates cannot be stored, so nothing has such an id."""
    return stream_id if stream_id.isascii() else ""


def make_table(connection: sqlite3.Connection) -> None:
    """Part of a migration: never changes once it is released."""
    for statement in _TABLE:
        connection.execute(statement)


_TABLE = (
    """CREATE TABLE streams (
        id TEXT PRIMARY KEY NOT NULL,
        "clientId" TEXT NOT NULL,
        model TEXT NOT NULL,
        status TEXT NOT NULL,
        "createdAt" INTEGER NOT NULL,
        "group" TEXT NOT NULL,
        "references" TEXT NOT NULL,
        "leaseOwner" TEXT,
        "leaseUntil" INTEGER,
        revision INTEGER NOT NULL,
        currency TEXT,
        "otherCurrency" TEXT,
        measured INTEGER NOT NULL,
        "inputTokens" INTEGER NOT NULL,
        "outputTokens" INTEGER NOT NULL,
        "llmDuration" REAL NOT NULL,
        "totalDuration" REAL NOT NULL,
        "inputCost" INTEGER NOT NULL,
        "inputCostHigh" INTEGER NOT NULL,
        "outputCost" INTEGER NOT NULL,
        "outputCostHigh" INTEGER NOT NULL,
        body TEXT NOT NULL,
        texts TEXT NOT NULL
    )""",
    # find, count, sums: a client's, and an admin's
    'CREATE INDEX streams_of_client ON streams ("clientId", "createdAt", id)',
    'CREATE INDEX streams_by_age ON streams ("createdAt", id)',
    # renew, expired
    'CREATE INDEX streams_held ON streams ("leaseOwner") WHERE "leaseOwner" IS NOT NULL',
    'CREATE INDEX streams_leased ON streams ("leaseUntil") WHERE "leaseUntil" IS NOT NULL',
)
