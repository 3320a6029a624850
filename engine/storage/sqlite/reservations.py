"""Idempotency records."""

import sqlite3
from datetime import datetime

from engine.jobs.queue import IdempotencyRecord
from engine.storage.sqlite.rows import from_ms, to_ms

_READ = (
    "SELECT client_id, key, fingerprint, first_id, jobs, created_at, expires_at FROM idempotency "
    "WHERE client_id = ? AND key = ? AND expires_at > ?"
)
_WRITE = (
    "INSERT OR REPLACE INTO idempotency (client_id, key, fingerprint, first_id, jobs, created_at, expires_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_FORGET = "DELETE FROM idempotency WHERE expires_at <= ?"


def reserve(connection: sqlite3.Connection, record: IdempotencyRecord, now: datetime) -> IdempotencyRecord:
    """See JobQueue.reserve."""
    row = connection.execute(_READ, (record.client_id, record.key, to_ms(now))).fetchone()
    if row is not None:
        return _record(row)
    instants = (to_ms(record.created_at), to_ms(record.expires_at))
    connection.execute(
        _WRITE, (record.client_id, record.key, record.fingerprint, record.first_id, record.count, *instants)
    )
    return record


def forget_expired(connection: sqlite3.Connection, now: datetime) -> int:
    """See JobQueue.forget_expired."""
    return connection.execute(_FORGET, (to_ms(now),)).rowcount


def _record(row: tuple[str, str, str, str, int, int, int]) -> IdempotencyRecord:
    client_id, key, fingerprint, first_id, count, created_at, expires_at = row
    return IdempotencyRecord(
        client_id=client_id,
        key=key,
        fingerprint=fingerprint,
        first_id=first_id,
        count=count,
        created_at=from_ms(created_at),
        expires_at=from_ms(expires_at),
    )
