"""What idempotency keys stood for, one document per client and key."""

import hashlib
from datetime import datetime

from pymongo.errors import DuplicateKeyError

from engine.errors import StorageUnavailable
from engine.jobs.queue import IdempotencyRecord
from engine.storage.codec import certain_instant
from engine.storage.mongo.connection import Document, Documents
from engine.storage.mongo.faults import guarded

_RACES = 20


class Idempotency:
    def __init__(self, records: Documents) -> None:
        self._records = records

    def reserve(self, record: IdempotencyRecord, now: datetime) -> IdempotencyRecord:
        """See JobQueue.reserve. Repeating is safe: a record that had been stored is found and answered."""
        document = _stored(record)
        for _ in range(_RACES):
            if self._inserted(document):
                return record
            standing = guarded(lambda: self._records.find_one({"_id": document["_id"]}))
            if standing is None:
                continue
            if certain_instant(standing["expiresAt"]) > now:
                return _read(standing)
            if self._took_over(standing, document):
                return record
        raise StorageUnavailable("an idempotency key is written to all the time")

    def forget_expired(self, now: datetime) -> int:
        """See JobQueue.forget_expired."""
        return guarded(lambda: self._records.delete_many({"expiresAt": {"$lte": now}})).deleted_count

    def _inserted(self, document: Document) -> bool:
        try:
            guarded(lambda: self._records.insert_one(document))
        except DuplicateKeyError:
            return False
        return True

    def _took_over(self, expired: Document, document: Document) -> bool:
        query = {"_id": document["_id"], "expiresAt": expired["expiresAt"]}
        return guarded(lambda: self._records.replace_one(query, document)).matched_count == 1


def _stored(record: IdempotencyRecord) -> Document:
    name = f"{record.client_id}\0{record.key}".encode()
    return {
        "_id": hashlib.sha256(name).hexdigest(),
        "clientId": record.client_id,
        "key": record.key,
        "fingerprint": record.fingerprint,
        "firstId": record.first_id,
        "count": record.count,
        "createdAt": record.created_at,
        "expiresAt": record.expires_at,
    }


def _read(document: Document) -> IdempotencyRecord:
    return IdempotencyRecord(
        client_id=document["clientId"],
        key=document["key"],
        fingerprint=document["fingerprint"],
        first_id=document["firstId"],
        count=document["count"],
        created_at=certain_instant(document["createdAt"]),
        expires_at=certain_instant(document["expiresAt"]),
    )
