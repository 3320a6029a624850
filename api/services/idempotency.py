"""One effect for repeated requests: an Idempotency-Key stands for the jobs that its first request made."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

import orjson

from api.core.unprocessable import KeyReused
from engine.jobs.queue import IdempotencyRecord, JobQueue

KEPT = timedelta(hours=24)
_NOTHING = "0" * 24


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A client's key, and what tells its request from any other one."""

    key: str
    fingerprint: str


def fingerprint(kind: str, body: bytes) -> str:
    """Equal for equal JSON, whatever the order of its keys; `kind` tells endpoints and callers apart."""
    text = orjson.dumps([kind, orjson.loads(body)], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()


class IdempotencyKeys:
    """Reservations in the queue's own storage: kept for KEPT, per client, over restarts and by all replicas."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue

    def reserve(self, client_id: str, key: RequestKey, first_id: str, count: int, now: datetime) -> IdempotencyRecord:
        """The record that stands for `key`: a new one for the given ids, or that of an earlier request.

        Raises KeyReused where the key came with another body.
        """
        record = IdempotencyRecord(
            client_id=client_id,
            key=key.key,
            fingerprint=key.fingerprint,
            first_id=first_id,
            count=count,
            created_at=now,
            expires_at=now + KEPT,
        )
        return self._same(self._queue.reserve(record, now), key)

    def standing(self, client_id: str, key: RequestKey, now: datetime) -> IdempotencyRecord | None:
        """The record that an earlier request left; raises KeyReused as above.

        Asks by a reservation that has expired already, so that none is left behind.
        """
        probe = IdempotencyRecord(
            client_id=client_id,
            key=key.key,
            fingerprint=key.fingerprint,
            first_id=_NOTHING,
            count=0,
            created_at=now,
            expires_at=now,
        )
        found = self._queue.reserve(probe, now)
        return None if found.count == 0 else self._same(found, key)

    @staticmethod
    def _same(record: IdempotencyRecord, key: RequestKey) -> IdempotencyRecord:
        if record.fingerprint != key.fingerprint:
            raise KeyReused(key.key)
        return record
