"""The stores of clients, models, prompts, prompt flows and workers on SQLite: one table each, one JSON text a row."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

import orjson

from engine.errors import Duplicate
from engine.jobs.queue import Page
from engine.records.store import Where
from engine.records.values import Prompt, Worker
from engine.storage.record_codec import PROMPTS, WORKERS, Kind, Record
from engine.storage.sqlite.conditions import Conditions
from engine.storage.sqlite.connection import Readers
from engine.storage.sqlite.faults import is_duplicate
from engine.storage.sqlite.rows import json_of
from engine.storage.sqlite.schema import table_of
from engine.storage.sqlite.writer import Transaction, Writer

R = TypeVar("R", bound=Record)

_RENEW = (
    "UPDATE workers SET body = json_set(body, '$.lease.expiresAt', ?), revision = revision + 1 "
    "WHERE deleted = 0 AND status = 'running' AND json_extract(body, '$.lease.owner') = ?"
)
_HIGHEST = (
    "SELECT MAX(json_extract(body, '$.version')) FROM prompts INDEXED BY prompts_by_name "
    "WHERE deleted = 0 AND name = ? AND json_extract(body, '$.type') = ? "
    "AND typeof(json_extract(body, '$.version')) = 'integer' AND "
)


class SqliteRecordStore(Generic[R]):
    """See RecordStore, whose contract this keeps."""

    def __init__(self, kind: Kind[R], writer: Writer, readers: Readers) -> None:
        self._kind = kind
        self._table = table_of(kind)
        self._writer = writer
        self._readers = readers

    def add(self, record: R) -> None:
        values = self._values(record, record.revision)
        names = ", ".join(values)
        statement = f"INSERT INTO {self._table} ({names}) VALUES ({', '.join('?' * len(values))})"
        self._write(statement, tuple(values.values()))

    def get(self, record_id: str) -> R | None:
        return self.get_many([record_id]).get(record_id)

    def get_many(self, record_ids: Sequence[str]) -> dict[str, R]:
        wanted = orjson.dumps([record_id for record_id in record_ids if _is_text(record_id)]).decode()
        statement = (
            f"SELECT revision, body FROM {self._table} WHERE id IN (SELECT value FROM json_each(?)) AND deleted = 0"
        )
        return {record.id: record for record in self._read(statement, (wanted,))}

    def compare_and_set(self, record: R) -> bool:
        values = self._values(record, record.revision + 1)
        assignments = ", ".join(f"{name} = ?" for name in values)
        statement = f"UPDATE {self._table} SET {assignments} WHERE id = ? AND revision = ? AND deleted = 0"
        return self._write(statement, (*values.values(), record.id, record.revision)) == 1

    def find(self, where: Where, page: Page) -> list[R]:
        conditions = self._conditions(where)
        direction = "DESC" if page.newest_first else "ASC"
        if where.after is not None:
            beyond = "<" if page.newest_first else ">"
            conditions.and_(f"seq {beyond} (SELECT seq FROM {self._table} WHERE id = ?)", where.after)
        return self._read(
            f"SELECT revision, body FROM {self._table}{conditions} ORDER BY seq {direction} LIMIT ? OFFSET ?",
            (*conditions.values, page.limit, page.skip),
        )

    def count(self, where: Where) -> int:
        conditions = self._conditions(where)
        with self._readers.borrow() as connection:
            statement = f"SELECT COUNT(*) FROM {self._table}{conditions}"
            [total] = connection.execute(statement, conditions.values).fetchone()
        return int(total)

    def _values(self, record: R, revision: int) -> dict[str, Any]:
        document = self._kind.to_document(record)
        return {
            "id": record.id,
            "unique_key": document["uniqueKey"],
            "revision": revision,
            "deleted": record.metadata.is_deleted,
            **{f'"{name}"': document[name] for name in self._kind.indexed},
            "body": json_of(document),
        }

    def _write(self, statement: str, values: tuple[Any, ...]) -> int:
        """How many rows it changed; raises Duplicate."""

        def operation(transaction: Transaction) -> int:
            try:
                return transaction.connection.execute(statement, values).rowcount
            except sqlite3.IntegrityError as error:
                if is_duplicate(error):
                    raise Duplicate(f"{self._kind.noun} already exists") from error
                raise

        return self._writer.run(operation)

    def _read(self, statement: str, values: tuple[Any, ...]) -> list[R]:
        with self._readers.borrow() as connection:
            rows = connection.execute(statement, values).fetchall()
        return [self._kind.from_document({**orjson.loads(body), "revision": revision}) for revision, body in rows]

    def _conditions(self, where: Where) -> Conditions:
        conditions = Conditions().and_("deleted = 0")
        for name, values in where.equals.items():
            _one_of(conditions, self._column(name), values)
        if where.visible_to is not None:
            visible = f"({self._column('isPublic')} = 1 OR {self._column('clientId')} = ?)"
            conditions.and_(visible, where.visible_to)
        return conditions

    def _column(self, name: str) -> str:
        """A stored field as SQL: its column where it has one, else out of the JSON. Dots go deeper."""
        if name in self._kind.indexed:
            return f'"{name}"'
        path = ".".join(f'"{part}"' for part in name.split("."))
        return f"json_extract(body, '$.{path}')"


def _one_of(conditions: Conditions, column: str, values: Sequence[Any]) -> None:
    known = [value for value in values if value is not None]
    texts = [f"{column} IN ({', '.join('?' * len(known))})"] if known or len(known) == len(values) else []
    if len(known) < len(values):
        texts.append(f"{column} IS NULL")
    conditions.and_(f"({' OR '.join(texts)})", *known)


def _is_text(value: str) -> bool:
    """Whether `value` can be stored at all: lone surrogates cannot, so nothing has such an id."""
    return value.isascii() or value.encode("utf-8", "replace").decode() == value


class SqlitePromptStore(SqliteRecordStore[Prompt]):
    """See PromptStore."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        super().__init__(PROMPTS, writer, readers)

    def highest_version(self, name: str, kind: str, client_id: str | None) -> int:
        public = "json_extract(body, '$.isPublic') = 1"
        scope = Conditions().and_(public) if client_id is None else Conditions().and_(f"NOT {public}")
        if client_id is not None:
            scope.and_('"clientId" = ?', client_id)
        statement = _HIGHEST + str(scope).removeprefix(" WHERE ")
        with self._readers.borrow() as connection:
            [highest] = connection.execute(statement, (name, kind, *scope.values)).fetchone()
        return int(highest or 0)


class SqliteWorkerStore(SqliteRecordStore[Worker]):
    """See WorkerStore."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        super().__init__(WORKERS, writer, readers)

    def running(self) -> list[Worker]:
        return self._read(
            "SELECT revision, body FROM workers WHERE deleted = 0 AND status = 'running' ORDER BY seq", ()
        )

    def renew(self, owner: str, expires_at: datetime) -> int:
        return self._write(_RENEW, (expires_at.isoformat(), owner))
