"""Replacing jobs by revision. A stamp tells afterwards whose replacement it was."""

from collections.abc import Sequence
from datetime import datetime

from pymongo import UpdateOne

from engine.jobs.job import Job
from engine.storage.mongo.connection import Documents
from engine.storage.mongo.documents import LIVE, replacement
from engine.storage.mongo.faults import OutcomeUnknown, guarded, make_durable
from utilities.ids import new_uuid

_PART = 500
"""Jobs per command: the driver's time limit is for a command."""


class Edits:
    """The caller has marked the buckets of the jobs."""

    def __init__(self, jobs: Documents) -> None:
        self._jobs = jobs

    def replaced(self, job: Job, now: datetime) -> bool:
        return self.all_replaced([job], now)[0]

    def all_replaced(self, jobs: Sequence[Job], now: datetime) -> list[bool]:
        """True for each job whose stored revision was the given one's and which was replaced."""
        parts = [jobs[start : start + _PART] for start in range(0, len(jobs), _PART)]
        return [replaced for part in parts for replaced in self._part_replaced(part, now)]

    def _part_replaced(self, jobs: Sequence[Job], now: datetime) -> list[bool]:
        stamp = new_uuid()
        writes = [
            UpdateOne({"_id": job.id, "revision": job.revision, **LIVE}, replacement(job, now, f"{stamp}:{place}"))
            for place, job in enumerate(jobs)
        ]
        try:
            matched = guarded(lambda: self._jobs.bulk_write(writes, ordered=False)).matched_count
        except OutcomeUnknown:
            matched = -1
        if matched == len(jobs):
            return [True] * len(jobs)
        return self._compared(jobs, stamp)

    def _compared(self, jobs: Sequence[Job], stamp: str) -> list[bool]:
        query = {"_id": {"$in": [job.id for job in jobs]}}
        found = guarded(lambda: list(self._jobs.find(query, {"stamp": 1})))
        make_durable(self._jobs)
        stamps = {document["_id"]: document.get("stamp") for document in found}
        return [stamps.get(job.id) == f"{stamp}:{place}" for place, job in enumerate(jobs)]
