"""Writes for jobs that are held: settlements, heartbeats, late bookings."""

from collections.abc import Callable, Sequence
from datetime import datetime

from pymongo import UpdateMany, UpdateOne

from engine.errors import StorageUnavailable
from engine.jobs.changes import with_attempt
from engine.jobs.job import Attempt, Job
from engine.jobs.outcome import Settlement
from engine.jobs.queue import Hold
from engine.storage.codec import Line
from engine.storage.mongo.connection import Document, Documents
from engine.storage.mongo.documents import LIVE, possible, read_job, stored_attempt, stored_totals
from engine.storage.mongo.edits import Edits
from engine.storage.mongo.faults import OutcomeUnknown, guarded, make_durable
from engine.storage.mongo.marks import Marks
from engine.storage.mongo.outcomes import guard, settled_or_known, update
from engine.storage.mongo.places import Places

_RACES = 20
"""How often a write is tried again because another one came first, before that counts as trouble."""


class Settlements:
    def __init__(self, jobs: Documents, edits: Edits, marks: Marks, places: Places) -> None:
        self._jobs = jobs
        self._edits = edits
        self._marks = marks
        self._places = places

    def settle(self, settlements: Sequence[Settlement], now: datetime) -> list[bool]:
        """See JobQueue.settle. The counts of a bulk write only add up: where some are missing, the jobs tell which."""
        if not settlements:
            return []
        with self._marks.writing(self._places.of([one.job_id for one in settlements])):
            if self._written(settlements, now) == len(settlements):
                return [True] * len(settlements)
            found = self._read([one.job_id for one in settlements])
            make_durable(self._jobs)
            return [self._settled(found.get(one.job_id), one, now) for one in settlements]

    def _written(self, settlements: Sequence[Settlement], now: datetime) -> int | None:
        """How many were written; None where the server cannot tell."""
        writes = [UpdateOne(guard(one, now), update(one, now)) for one in settlements if possible([one.job_id])]
        if not writes:
            return 0
        try:
            return guarded(lambda: self._jobs.bulk_write(writes, ordered=False)).matched_count
        except OutcomeUnknown:
            return None

    def _read(self, job_ids: Sequence[str]) -> dict[str, Job]:
        query = {"_id": {"$in": possible(job_ids)}, **LIVE}
        return {document["_id"]: read_job(document) for document in guarded(lambda: list(self._jobs.find(query)))}

    def _settled(self, job: Job | None, settlement: Settlement, now: datetime) -> bool:
        """One settlement that may not have been written: read, decide, write by revision."""
        for _ in range(_RACES):
            if job is None:
                return False
            changed, known = settled_or_known(job, settlement, now)
            if changed is None:
                return known
            if self._edits.replaced(changed, now):
                return True
            job = self._read([settlement.job_id]).get(settlement.job_id)
        raise StorageUnavailable(f"job {settlement.job_id} is written to all the time")

    def extend(self, holds: Sequence[Hold], expires_at: datetime) -> frozenset[str]:
        """See JobQueue.extend. One update per token, of which there are few."""
        if not holds:
            return frozenset()
        by_token: dict[int, list[str]] = {}
        for hold in holds:
            by_token.setdefault(hold.token, []).append(hold.job_id)
        change = {"$set": {"lease.expiresAt": expires_at, "wakeAt": expires_at}, "$inc": {"revision": 1}}
        writes = [UpdateMany(_held(ids, token), change) for token, ids in by_token.items()]
        result = _attempted(lambda: self._jobs.bulk_write(writes, ordered=False).matched_count)
        if result == len(holds):
            return frozenset(hold.job_id for hold in holds)
        return self._still_held(by_token, expires_at)

    def _still_held(self, by_token: dict[int, list[str]], expires_at: datetime) -> frozenset[str]:
        kept: set[str] = set()
        for token, ids in by_token.items():
            kept |= self._ids({**_held(ids, token), "wakeAt": {"$gte": expires_at}})
        return frozenset(kept)

    def _ids(self, query: Document) -> set[str]:
        return {document["_id"] for document in guarded(lambda: list(self._jobs.find(query, {"_id": 1})))}

    def book(self, job_id: str, attempt: Attempt) -> bool:
        """See JobQueue.book."""
        tried = False
        for _ in range(_RACES):
            document = self._even_deleted(job_id)
            if document is None:
                return False
            job = read_job(document)
            booked = with_attempt(job, attempt)
            if booked is job:
                return tried and attempt in job.ledger
            with self._marks.writing([document["bucket"]]):
                if self._booked(booked):
                    return True
            tried = True
        raise StorageUnavailable(f"job {job_id} is written to all the time")

    def _even_deleted(self, job_id: str) -> Document | None:
        query = {"_id": {"$in": possible([job_id])}, "_metadata": {"$exists": True}}
        return guarded(lambda: self._jobs.find_one(query))

    def _booked(self, job: Job) -> bool:
        values = {"ledger": [stored_attempt(entry) for entry in job.ledger], "totals": stored_totals(job.totals)}
        query = {"_id": job.id, "revision": job.revision}
        write = {"$set": values, "$inc": {"revision": 1}}
        return bool(_attempted(lambda: self._jobs.update_one(query, write).matched_count))


def _held(ids: Sequence[str], token: int) -> Document:
    return {"_id": {"$in": possible(ids)}, "token": token, "line": str(Line.LEASED)}


def _attempted(write: Callable[[], int]) -> int | None:
    """How many a write matched; None where the server cannot tell."""
    try:
        return guarded(write)
    except OutcomeUnknown:
        return None
