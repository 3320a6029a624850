"""The job queue on MongoDB: implements engine.jobs.queue.JobQueue, whose docstrings are the contract."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from pymongo.database import Database

from engine.jobs.job import Attempt, Job
from engine.jobs.outcome import Settlement
from engine.jobs.queue import ClaimFilter, ClaimRequest, Hold, IdempotencyRecord, JobQuery, Page, SummaryRow
from engine.storage.codec import Line, instant, readable
from engine.storage.mongo.batches import Batches
from engine.storage.mongo.claims import Claims
from engine.storage.mongo.connection import Document
from engine.storage.mongo.documents import LIVE, possible, read_job, stored_job
from engine.storage.mongo.edits import Edits
from engine.storage.mongo.faults import guarded
from engine.storage.mongo.idempotency import Idempotency
from engine.storage.mongo.indexes import COUNTERS, IDEMPOTENCY, JOBS, STREAMS
from engine.storage.mongo.marks import SLICE, Marks
from engine.storage.mongo.places import Places
from engine.storage.mongo.predicates import Sort, is_narrow, listed, matching, ready
from engine.storage.mongo.settlements import Settlements
from engine.storage.mongo.tallies import Tallies
from engine.storage.mongo.usage import MongoUsage
from engine.usage import UsageStore


class MongoJobQueue:
    """`usage` are the sums over the calls of jobs and streams, which share the queue's `marks`."""

    def __init__(self, database: Database[Document]) -> None:
        self._jobs = database[JOBS]
        self.marks = Marks(database[COUNTERS])
        self._places = Places(self._jobs)
        self._batches = Batches(self._jobs, self.marks)
        self._edits = Edits(self._jobs)
        self._tallies = Tallies(self._jobs, database[COUNTERS], self.marks)
        self.usage: UsageStore = MongoUsage(self._jobs, database[STREAMS], database[COUNTERS], self.marks)
        self._claims = Claims(self._jobs, self._batches, self.marks, self._places)
        self._settlements = Settlements(self._jobs, self._edits, self.marks, self._places)
        self._idempotency = Idempotency(database[IDEMPOTENCY])

    def close(self) -> None:
        """Take this process's marks away, so that others need not wait for them to age."""
        self.marks.end_idle()

    def insert(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        self._batches.look_after_doubts()
        documents = [stored_job(job, job.metadata.created_at) for job in jobs]
        with self.marks.writing(self._placed(documents)):
            self._batches.insert(documents)
        self._places.note(documents)

    def _placed(self, documents: Sequence[Document]) -> set[str]:
        """Give every document its bucket: its client's, in slices."""
        by_client: dict[str, list[Document]] = {}
        for document in documents:
            by_client.setdefault(document["clientId"], []).append(document)
        buckets: set[str] = set()
        for client_id, own in by_client.items():
            for start in range(0, len(own), SLICE):
                some = own[start : start + SLICE]
                bucket = self.marks.place(client_id, len(some))
                buckets.add(bucket)
                for document in some:
                    document["bucket"] = bucket
        return buckets

    def reserve(self, record: IdempotencyRecord, now: datetime) -> IdempotencyRecord:
        return self._idempotency.reserve(record, now)

    def forget_expired(self, now: datetime) -> int:
        return self._idempotency.forget_expired(now)

    def claim(self, request: ClaimRequest, now: datetime) -> list[Job]:
        if request.limit < 1:
            return []
        self._batches.look_after_doubts()
        return self._claims.claim(request, now)

    def waiting_clients(self, wanted: ClaimFilter, after: str | None, limit: int) -> list[str]:
        """Through `distinct`, which seeks from client to client in the index on what is asked for first."""
        condition = ready(replace(wanted, client_id=None, references=wanted.references[:1]))
        if after is not None:
            condition["clientId"] = {"$gt": after}
        found: list[str] = guarded(lambda: self._jobs.distinct("clientId", condition))
        return sorted(found)[:limit]

    def extend(self, holds: Sequence[Hold], expires_at: datetime, now: datetime) -> frozenset[str]:  # noqa: ARG002 - expired ones too
        return self._settlements.extend(holds, expires_at)

    def settle(self, settlements: Sequence[Settlement], now: datetime) -> list[bool]:
        return self._settlements.settle(settlements, now)

    def book(self, job_id: str, attempt: Attempt) -> bool:
        return self._settlements.book(job_id, attempt)

    def expired(self, now: datetime, limit: int) -> list[Job]:
        condition = {"line": str(Line.LEASED), "wakeAt": {"$lte": now}}
        return readable(self._found(condition, [("line", 1), ("wakeAt", 1)], Page(limit=limit)), read_job)

    def promote(self, now: datetime, limit: int) -> int:
        condition: Document = {"line": str(Line.LATER), "wakeAt": {"$lte": now}}
        order: Sort = [("line", 1), ("wakeAt", 1)]
        due = guarded(lambda: list(self._jobs.find(condition, {"_id": 1}).sort(order).limit(limit)))
        if not due:
            return 0
        condition["_id"] = {"$in": [document["_id"] for document in due]}
        change = {"$set": {"line": str(Line.READY)}, "$unset": {"wakeAt": ""}, "$inc": {"revision": 1}}
        return guarded(lambda: self._jobs.update_many(condition, change)).modified_count

    def next_due(self) -> datetime | None:
        found = [self._first_in(line) for line in (Line.LATER, Line.LEASED)]
        return min((moment for moment in found if moment is not None), default=None)

    def _first_in(self, line: Line) -> datetime | None:
        condition = {"line": str(line), "wakeAt": {"$exists": True}}
        order = [("line", 1), ("wakeAt", 1)]
        first = guarded(lambda: self._jobs.find_one(condition, {"wakeAt": 1}, sort=order))
        return None if first is None else instant(first["wakeAt"])

    def get(self, job_id: str) -> Job | None:
        return self.get_many([job_id]).get(job_id)

    def get_many(self, job_ids: Sequence[str]) -> dict[str, Job]:
        if not job_ids:
            return {}
        jobs = self._read({"_id": {"$in": possible(job_ids)}, **LIVE}, None, Page(limit=0))
        return {job.id: job for job in jobs}

    def compare_and_set(self, jobs: Sequence[Job], now: datetime) -> list[bool]:
        if not jobs:
            return []
        with self.marks.writing(self._places.of([job.id for job in jobs])):
            return self._edits.all_replaced(jobs, now)

    def find(self, query: JobQuery, page: Page) -> list[Job]:
        return self._read(listed(query), [("_id", -1 if page.newest_first else 1)], page)

    def _read(self, condition: Document, order: Sort | None, page: Page) -> list[Job]:
        return [read_job(document) for document in self._found(condition, order, page)]

    def _found(self, condition: Document, order: Sort | None, page: Page) -> list[Document]:
        self._batches.look_after_doubts()
        cursor = self._jobs.find(condition, sort=order, skip=page.skip, limit=page.limit)
        documents = guarded(lambda: list(cursor.clone()))
        self._places.note(documents)
        return documents

    def count(self, query: JobQuery) -> int:
        if is_narrow(query):
            self._batches.look_after_doubts()
            return guarded(lambda: self._jobs.count_documents(matching(query)))
        return sum(row.count for row in self.summary(query))

    def summary(self, query: JobQuery) -> list[SummaryRow]:
        self._batches.look_after_doubts()
        return self._tallies.scanned(matching(query)) if is_narrow(query) else self._tallies.rows(query)

    def ahead_of(self, job: Job, limit: int) -> int:
        if limit < 1:
            return 0
        mine: Document = {"line": str(Line.READY), "clientId": job.client_id}
        urgent = self._counted({**mine, "priority": {"$lt": job.priority}}, limit)
        if urgent >= limit:
            return limit
        older = {**mine, "priority": job.priority, "_id": {"$lt": job.id}}
        return urgent + self._counted(older, limit - urgent)

    def _counted(self, condition: Document, limit: int) -> int:
        return guarded(lambda: self._jobs.count_documents(condition, limit=limit))
