"""In which bucket a job is counted, remembered for the jobs this process has just seen."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from engine.storage.mongo.connection import Document, Documents
from engine.storage.mongo.faults import guarded

_REMEMBERED = 20_000


class Places:
    """A bounded memory of job id to bucket; asks the database for the rest. A job's bucket never changes."""

    def __init__(self, jobs: Documents) -> None:
        self._jobs = jobs
        self._lock = threading.Lock()
        self._known: OrderedDict[str, str] = OrderedDict()

    def note(self, documents: Iterable[Document]) -> None:
        """Remember where documents, as they were read, are counted."""
        found = {document["_id"]: document["bucket"] for document in documents if "bucket" in document}
        with self._lock:
            self._known.update(found)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def of(self, job_ids: Sequence[str]) -> set[str]:
        """The buckets of those of the jobs that exist."""
        with self._lock:
            known = {job_id: self._known[job_id] for job_id in job_ids if job_id in self._known}
        unknown = [job_id for job_id in job_ids if job_id not in known and job_id.isascii()]
        if not unknown:
            return set(known.values())
        found = guarded(lambda: list(self._jobs.find({"_id": {"$in": unknown}}, {"bucket": 1})))
        self.note(found)
        return {*known.values(), *(document["bucket"] for document in found if "bucket" in document)}
