"""All of a batch or nothing, without transactions.

A batch is inserted in order, in one command; every job of it names the last one, its anchor. Servers write in order,
so once the anchor is there, all are. Jobs without their anchor are not claimed. Where an insert ends in an error, its
anchor's place is taken by a tombstone, which stops what may still arrive, and what had been written is deleted. Jobs
left behind by a server and a process that died together are deleted when a claim comes upon them.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta

from pymongo.errors import PyMongoError

from engine.errors import MetasyncError, StorageUnavailable
from engine.storage.codec import certain_instant
from engine.storage.mongo.connection import FOLLOWED, Document, Documents
from engine.storage.mongo.faults import OutcomeUnknown, guarded, make_durable
from engine.storage.mongo.marks import Marks
from engine.storage.mongo.turns import Turns

GIVEN_UP_AFTER = timedelta(minutes=1)
"""From when on a batch without its anchor is taken for one that nobody is inserting any more."""
_PART = 1000
"""Jobs per command: the driver's time limit is for a command, not for ten thousand jobs."""
_WATCH_SECONDS = 60.0
_BETWEEN_LOOKS = 1.0
_REMEMBERED = 20_000

_IS_TOMBSTONE: Document = {"tombstone": True}
_IS_JOB: Document = {"tombstone": {"$exists": False}}


class _Doubt:
    """A batch whose insert failed here: looked after until nothing of it can arrive any more."""

    def __init__(self, documents: Sequence[Document], now: float) -> None:
        self.job_ids = [document["_id"] for document in documents]
        self.buckets = {document["bucket"] for document in documents}
        self.until = now + _WATCH_SECONDS
        self.next_look = now


class Batches:
    """Inserts, and knows which batches are whole. Thread-safe."""

    def __init__(self, jobs: Documents, marks: Marks, clock: Callable[[], float] = time.monotonic) -> None:
        self._jobs = jobs
        self._marks = marks
        self._followed = jobs.with_options(write_concern=FOLLOWED)
        self._clock = clock
        self._turns = Turns(clock)
        self._lock = threading.Lock()
        self._whole: OrderedDict[str, None] = OrderedDict()
        self._doubts: dict[str, _Doubt] = {}

    def insert(self, documents: Sequence[Document]) -> None:
        """All of `documents`, the last being the anchor; those that exist already are left as they are."""
        anchor = documents[-1]["_id"]
        if len(documents) > 1:
            for document in documents:
                document["anchor"] = anchor
        try:
            if not self._inserted(documents):
                self._complete(documents, anchor)
        except StorageUnavailable:
            self._doubt(documents, anchor)
            raise
        except MetasyncError:
            self._doubt(documents, anchor)
            self.look_after_doubts()
            raise
        with self._lock:
            self._doubts.pop(anchor, None)

    def look_after_doubts(self) -> None:
        """To be called before jobs are read: takes back what failed inserts of this process left behind."""
        if not self._doubts:
            return
        with self._turns.taken():
            now = self._clock()
            with self._lock:
                due = {anchor: doubt for anchor, doubt in self._doubts.items() if doubt.next_look <= now}
            for anchor, doubt in due.items():
                self._take_back(anchor, doubt.job_ids, doubt.buckets)
                doubt.next_look = now + _BETWEEN_LOOKS
                if doubt.until <= now:
                    with self._lock:
                        self._doubts.pop(anchor, None)

    def broken(self, documents: Sequence[Document], now: datetime) -> set[str]:
        """Anchors that the given jobs name and that are not there. Jobs of batches given up long ago are deleted."""
        named: dict[str, datetime] = {}
        for document in documents:
            anchor = document.get("anchor")
            if anchor is not None and anchor not in self._whole:
                named[anchor] = certain_instant(document["_metadata"]["createdAt"])
        missing = set(named) - self._existing(named)
        for anchor in missing:
            if named[anchor] + GIVEN_UP_AFTER < now:
                left = [document for document in documents if document.get("anchor") == anchor]
                self._take_back(anchor, [each["_id"] for each in left], {each["bucket"] for each in left})
        return missing

    def _inserted(self, documents: Sequence[Document]) -> bool:
        """Whether nothing stood in the way. A large batch goes in parts, of which only the last waits for the disk."""
        try:
            for start in range(0, len(documents), _PART):
                part = documents[start : start + _PART]
                jobs = self._jobs if part[-1] is documents[-1] else self._followed
                _insert(jobs, part)
        except (PyMongoError, OutcomeUnknown):  # of the driver's only a duplicate: some of them exist already
            return False
        return True

    def _complete(self, documents: Sequence[Document], anchor: str) -> None:
        """Insert what is missing, the anchor last; adopt jobs left behind by a failed batch."""
        ids = [document["_id"] for document in documents]
        found = guarded(lambda: list(self._jobs.find({"_id": {"$in": ids}, **_IS_JOB}, {"anchor": 1})))
        named = {document["anchor"] for document in found if "anchor" in document}
        lost = named - self._existing(named) - {anchor}
        if lost:
            self._adopt(ids, lost, anchor)
        known = {document["_id"] for document in found}
        for document in documents:
            if document["_id"] not in known:
                self._put(document)
        make_durable(self._jobs)

    def _adopt(self, ids: Sequence[str], lost: Collection[str], anchor: str) -> None:
        query = {"_id": {"$in": list(ids)}, "anchor": {"$in": list(lost)}}
        guarded(lambda: self._jobs.update_many(query, {"$set": {"anchor": anchor}}))

    def _put(self, document: Document) -> None:
        """Insert one job, over a tombstone if there is one, unless it is there."""
        query = {"_id": document["_id"], **_IS_TOMBSTONE}
        try:
            guarded(lambda: self._jobs.replace_one(query, document, upsert=True))
        except PyMongoError:  # a duplicate: it is there
            return

    def _existing(self, anchors: Collection[str]) -> set[str]:
        if not anchors:
            return set()
        query = {"_id": {"$in": list(anchors)}, **_IS_JOB}
        found = {document["_id"] for document in guarded(lambda: list(self._jobs.find(query, {"_id": 1})))}
        with self._lock:
            self._whole.update(dict.fromkeys(found))
            while len(self._whole) > _REMEMBERED:
                self._whole.popitem(last=False)
        return found

    def _doubt(self, documents: Sequence[Document], anchor: str) -> None:
        if len(documents) > 1:
            with self._lock:
                self._doubts[anchor] = _Doubt(documents, self._clock())

    def _take_back(self, anchor: str, job_ids: Sequence[str], buckets: Collection[str]) -> None:
        """Delete the jobs of a batch, after making sure that it never becomes whole; a whole one stays."""
        tombstone = {"_id": anchor, **_IS_TOMBSTONE}
        try:
            guarded(lambda: self._jobs.insert_one(dict(tombstone)))
        except PyMongoError:  # a duplicate: the anchor, or a tombstone of before
            if guarded(lambda: self._jobs.find_one(tombstone, {"_id": 1})) is None:
                return
        others = [job_id for job_id in job_ids if job_id != anchor]
        with self._marks.writing(buckets):
            guarded(lambda: self._jobs.delete_many({"_id": {"$in": others}, "anchor": anchor}))


def _insert(jobs: Documents, documents: Sequence[Document]) -> None:
    guarded(lambda: jobs.insert_many(documents, ordered=True))
