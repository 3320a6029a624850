"""The job queue on SQLite. Reads go to the pool of readers, writes through the one writer."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime

import orjson

from engine.jobs.job import Attempt, Job
from engine.jobs.outcome import Settlement
from engine.jobs.queue import ClaimFilter, ClaimRequest, Hold, IdempotencyRecord, JobQuery, Page, SummaryRow
from engine.jobs.references import job_texts
from engine.storage.codec import Line, readable
from engine.storage.sqlite import claims, counters, listing, reservations, settling
from engine.storage.sqlite.bulk import BulkInsert
from engine.storage.sqlite.connection import Readers
from engine.storage.sqlite.rows import COLUMNS, FRESH, Row, instant_of, job_of, json_of, reference_rows, row_of, to_ms
from engine.storage.sqlite.usage import calls_of
from engine.storage.sqlite.writer import Transaction, Writer
from utilities.ids import is_object_id

_PLACES = ", ".join("?" * len(Row._fields))
_INSERT = BulkInsert("jobs", COLUMNS, width=len(Row._fields))
_REPLACE = f"UPDATE jobs SET ({COLUMNS}) = ({_PLACES}) WHERE id = ?"
_GET = f"SELECT {COLUMNS} FROM jobs WHERE id = ? AND deleted = 0"
_GET_MANY = f"SELECT {COLUMNS} FROM jobs WHERE id IN (SELECT value FROM json_each(?)) AND deleted = 0"
_EXPIRED = (
    f"SELECT {COLUMNS} FROM jobs INDEXED BY jobs_leased WHERE line = 'leased' AND lease_until <= ? "
    "ORDER BY lease_until LIMIT ?"
)
_EXTEND = (
    "UPDATE jobs SET lease_until = ?, revision = revision + 1 "
    "WHERE id = ? AND token = ? AND line = 'leased' AND lease_owner IS NOT NULL"
)
_ANY_DUE = "SELECT 1 FROM jobs INDEXED BY jobs_later WHERE line = 'later' AND due_at <= ? LIMIT 1"
_PROMOTE = (
    "UPDATE jobs SET line = 'ready', revision = revision + 1 WHERE rowid IN (SELECT rowid FROM jobs "
    "INDEXED BY jobs_later WHERE line = 'later' AND due_at <= ? ORDER BY due_at LIMIT ?) "
    "RETURNING id, client_id, operation, model, totals, texts"
)
_NEXT_DUE = (
    "SELECT MIN(at) FROM ("
    "SELECT MIN(due_at) AS at FROM jobs INDEXED BY jobs_later WHERE line = 'later' UNION ALL "
    "SELECT MIN(lease_until) FROM jobs INDEXED BY jobs_leased WHERE line = 'leased')"
)
_BOOK_READ = f"SELECT {COLUMNS} FROM jobs WHERE id = ?"
_BOOK_WRITE = "UPDATE jobs SET totals = ?, progress = ?, revision = revision + 1 WHERE id = ?"
_MARK_READY = "UPDATE job_references SET ready = ? WHERE id = ?"
_ADD_REFERENCES = BulkInsert("job_references", "id, text, client_id, priority, ready", width=5)
_DROP_REFERENCES = "DELETE FROM job_references WHERE id = ?"
_AHEAD = (
    "SELECT COUNT(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_ready "
    "WHERE line = 'ready' AND client_id = ? AND (priority, id) < (?, ?) LIMIT ?)"
)


class SqliteJobQueue:
    """See JobQueue, whose contract this keeps."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers

    def insert(self, jobs: Sequence[Job]) -> None:
        rows = [row_of(job, job.metadata.created_at) for job in jobs]
        references = {job.id: texts for job in jobs if (texts := job_texts(job))}
        if rows:
            self._writer.run(lambda transaction: _insert(transaction, rows, references))

    def reserve(self, record: IdempotencyRecord, now: datetime) -> IdempotencyRecord:
        return self._writer.run(lambda transaction: reservations.reserve(transaction.connection, record, now))

    def forget_expired(self, now: datetime) -> int:
        return self._writer.run(lambda transaction: reservations.forget_expired(transaction.connection, now))

    def claim(self, request: ClaimRequest, now: datetime) -> list[Job]:
        with self._readers.borrow() as connection:
            if request.limit < 1 or not claims.any_ready(connection, request.filter):
                return []
        rows = self._writer.run(lambda transaction: _claim(transaction, request, now))
        return readable(sorted(rows, key=lambda row: (row.priority, row.id)), job_of)

    def waiting_clients(self, wanted: ClaimFilter, after: str | None, limit: int) -> list[str]:
        with self._readers.borrow() as connection:
            return claims.waiting_clients(connection, wanted, after or "", limit)

    def extend(
        self,
        holds: Sequence[Hold],
        expires_at: datetime,
        now: datetime,  # noqa: ARG002 - the port's; what has run out and is not recovered is extended too
    ) -> frozenset[str]:
        def operation(transaction: Transaction) -> frozenset[str]:
            until, execute = to_ms(expires_at), transaction.connection.execute
            return frozenset(
                hold.job_id for hold in holds if execute(_EXTEND, (until, hold.job_id, hold.token)).rowcount
            )

        return self._writer.run(operation) if holds else frozenset()

    def settle(self, settlements: Sequence[Settlement], now: datetime) -> list[bool]:
        if not settlements:
            return []
        return self._writer.run(
            lambda transaction: [_settle(transaction, settlement, now) for settlement in settlements]
        )

    def book(self, job_id: str, attempt: Attempt) -> bool:
        return is_object_id(job_id) and self._writer.run(lambda transaction: _book(transaction, job_id, attempt))

    def expired(self, now: datetime, limit: int) -> list[Job]:
        with self._readers.borrow() as connection:
            rows = connection.execute(_EXPIRED, (to_ms(now), limit)).fetchall()
        return readable(rows, job_of)

    def promote(self, now: datetime, limit: int) -> int:
        with self._readers.borrow() as connection:
            if connection.execute(_ANY_DUE, (to_ms(now),)).fetchone() is None:
                return 0
        return self._writer.run(lambda transaction: _promote(transaction, now, limit))

    def next_due(self) -> datetime | None:
        with self._readers.borrow() as connection:
            [earliest] = connection.execute(_NEXT_DUE).fetchone()
        return instant_of(earliest)

    def get(self, job_id: str) -> Job | None:
        if not is_object_id(job_id):
            return None
        with self._readers.borrow() as connection:
            row = connection.execute(_GET, (job_id,)).fetchone()
        return None if row is None else job_of(row)

    def get_many(self, job_ids: Sequence[str]) -> dict[str, Job]:
        wanted = orjson.dumps([job_id for job_id in job_ids if is_object_id(job_id)]).decode()
        with self._readers.borrow() as connection:
            rows = connection.execute(_GET_MANY, (wanted,)).fetchall()
        return {row[0]: job_of(row) for row in rows}

    def compare_and_set(self, jobs: Sequence[Job], now: datetime) -> list[bool]:
        rows = [row_of(job, now) for job in jobs]
        texts = [job_texts(job) for job in jobs]

        def operation(transaction: Transaction) -> list[bool]:
            return [_replace(transaction, row, of) for row, of in zip(rows, texts, strict=True)]

        return self._writer.run(operation) if rows else []

    def find(self, query: JobQuery, page: Page) -> list[Job]:
        with self._readers.borrow() as connection:
            rows = listing.find(connection, query, page)
        return [job_of(row) for row in rows]

    def count(self, query: JobQuery) -> int:
        with self._readers.borrow() as connection:
            return counters.count(connection, query) if counters.serves(query) else listing.count(connection, query)

    def summary(self, query: JobQuery) -> list[SummaryRow]:
        with self._readers.borrow() as connection:
            return counters.summary(connection, query) if counters.serves(query) else listing.summary(connection, query)

    def ahead_of(self, job: Job, limit: int) -> int:
        with self._readers.borrow() as connection:
            [count] = connection.execute(_AHEAD, (job.client_id, job.priority, job.id, limit)).fetchone()
        return int(count)


def _insert(transaction: Transaction, rows: Sequence[Row], references: dict[str, tuple[str, ...]]) -> None:
    inserted = _inserted(transaction.connection, rows)
    for row in inserted:
        transaction.counters.enter(row.place, row.totals)
        if row.totals is not None:
            transaction.usage.add(row.client_id, row.operation, calls_of(row.progress))
    texts = [each for row in inserted if row.texts for each in reference_rows(row, references[row.id])]
    _ADD_REFERENCES.run(transaction.connection, texts)


def _inserted(connection: sqlite3.Connection, rows: Sequence[Row]) -> Sequence[Row]:
    """Insert and answer those rows that were not there. Only where some were, the slower way tells which.

    An error leaves the savepoint to the transaction: where the disk is full, SQLite has undone both by itself.
    """
    connection.execute("SAVEPOINT rows")
    inserted = rows
    if _INSERT.run(connection, rows) != len(rows):
        connection.execute("ROLLBACK TO rows")
        inserted = [row for row in rows if _INSERT.run(connection, [row])]
    connection.execute("RELEASE rows")
    return inserted


def _claim(transaction: Transaction, request: ClaimRequest, now: datetime) -> list[Row]:
    rows = claims.leased(transaction.connection, request, now)
    for row in rows:
        ready = row.place._replace(status="PENDING", line="ready")
        transaction.counters.leave(ready, row.totals)
        transaction.counters.enter(row.place, row.totals)
    _mark(transaction, [row.id for row in rows if row.texts], ready=False)
    return rows


def _mark(transaction: Transaction, job_ids: Sequence[str], *, ready: bool) -> None:
    if job_ids:
        transaction.connection.executemany(_MARK_READY, [(ready, job_id) for job_id in job_ids])


def _settle(transaction: Transaction, settlement: Settlement, now: datetime) -> bool:
    row = transaction.connection.execute(settling.READ_HELD, (settlement.job_id,)).fetchone()
    if row is None:
        return False
    held = settling.Held._make(row)
    if not settling.admits(held, settlement, now):
        return settling.written_before(held, settlement)
    after, calls = settling.settled(held, settlement, now)
    transaction.connection.execute(settling.WRITE_SETTLED, (*after, settlement.job_id))
    transaction.counters.leave(held.place, held.totals)
    transaction.counters.enter(held.place._replace(status=after.status, line=after.line), after.totals)
    transaction.usage.add(held.client_id, held.operation, calls)
    if held.texts and after.line == Line.READY:
        _mark(transaction, [settlement.job_id], ready=True)
    return True


def _book(transaction: Transaction, job_id: str, attempt: Attempt) -> bool:
    found = transaction.connection.execute(_BOOK_READ, (job_id,)).fetchone()
    if found is None:
        return False
    row = Row._make(found)
    progress = {**FRESH} if row.progress is None else orjson.loads(row.progress)
    if not settling.books(progress, attempt):
        return False
    totals, calls = settling.book_attempt(progress, row.totals, attempt)
    transaction.usage.add(row.client_id, row.operation, calls)
    transaction.connection.execute(_BOOK_WRITE, (totals, json_of(progress), job_id))
    if not row.deleted:
        transaction.counters.leave(row.place, row.totals)
        transaction.counters.enter(row.place, totals)
    return True


def _promote(transaction: Transaction, now: datetime, limit: int) -> int:
    rows = transaction.connection.execute(_PROMOTE, (to_ms(now), limit)).fetchall()
    for _, client_id, operation, model, totals, _ in rows:
        later = counters.Place(client_id, "PENDING", "later", operation, model)
        transaction.counters.leave(later, totals)
        transaction.counters.enter(later._replace(line="ready"), totals)
    _mark(transaction, [job_id for job_id, *_, texts in rows if texts], ready=True)
    return len(rows)


def _replace(transaction: Transaction, row: Row, texts: Sequence[str]) -> bool:
    found = transaction.connection.execute(_GET, (row.id,)).fetchone()
    if found is None or Row._make(found).revision != row.revision:
        return False
    old = Row._make(found)
    transaction.connection.execute(_REPLACE, (*row._replace(revision=row.revision + 1), row.id))
    transaction.counters.leave(old.place, old.totals)
    if not row.deleted:
        transaction.counters.enter(row.place, row.totals)
    if (old.totals, old.operation) != (row.totals, row.operation):
        transaction.usage.remove(old.client_id, old.operation, calls_of(old.progress))
        transaction.usage.add(row.client_id, row.operation, calls_of(row.progress))
    if old.texts or row.texts:
        transaction.connection.execute(_DROP_REFERENCES, (row.id,))
        _ADD_REFERENCES.run(transaction.connection, reference_rows(row, texts[: row.texts]))
    return True
