"""What is counted per bucket of jobs, cached on the bucket's document. See marks.py for when a count holds."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from pymongo import UpdateOne

from engine.storage.codec import certain_instant
from engine.storage.mongo.clock import server_time
from engine.storage.mongo.connection import FOLLOWED, Document, Documents
from engine.storage.mongo.faults import guarded
from engine.storage.mongo.marks import DEAD_AFTER, Marks
from engine.storage.mongo.turns import Turns

_AT_ONCE = 8
"""Buckets recounted by one command: it stays far below the driver's time limit."""
_MOST_ROWS = 2000
"""A bucket with more kinds of rows than this is counted anew each time rather than cached."""
_OLDEST = timedelta(hours=1)
"""Each look recounts one bucket whose count is older than this: what heals a count that should not have held."""

Count = Callable[[Sequence[str]], list[tuple[str, Document]]]
"""From names of buckets to the rows found in them, each with its bucket."""


class BucketCounts:
    """One kind of count. One recount at a time per process: whoever waits finds the count made."""

    def __init__(self, counters: Documents, marks: Marks, field: str, count: Count) -> None:
        """`field` is where a bucket's document keeps {version, at, rows}."""
        self._counters = counters.with_options(write_concern=FOLLOWED)
        self._marks = marks
        self._field = field
        self._count = count
        self._turns = Turns()

    def rows(self, client_id: str | None) -> list[Document]:
        """Of all of the client's buckets, or of everybody's."""
        with self._turns.taken():
            self._marks.end_idle()
            cached, doubtful = self._buckets(client_id)
            counted = self._recounted(doubtful)
        return [row for rows in (*cached, *counted) for row in rows]

    def _buckets(self, client_id: str | None) -> tuple[list[list[Document]], list[Document]]:
        """The rows of the buckets whose count holds, and the other buckets."""
        query = {} if client_id is None else {"clientId": client_id}
        now = server_time(self._counters.database)
        wanted = {"version": 1, "writers": 1, self._field: 1}
        buckets: list[Document] = guarded(lambda: list(self._counters.find(query, wanted)))
        sure = [bucket for bucket in buckets if self._holds(bucket, now)]
        doubtful = [bucket for bucket in buckets if not self._holds(bucket, now)]
        if sure:
            oldest = min(sure, key=lambda bucket: bucket[self._field]["at"])
            if now - certain_instant(oldest[self._field]["at"]) > _OLDEST:
                sure.remove(oldest)
                doubtful.append(oldest)
        for bucket in doubtful:
            bucket["unwritten"] = not _living(bucket, now)
        return [bucket[self._field]["rows"] for bucket in sure], doubtful

    def _holds(self, bucket: Document, now: datetime) -> bool:
        counted = bucket.get(self._field)
        return counted is not None and counted["version"] == bucket["version"] and not _living(bucket, now)

    def _recounted(self, buckets: Sequence[Document]) -> list[list[Document]]:
        counts: list[list[Document]] = []
        for start in range(0, len(buckets), _AT_ONCE):
            some = buckets[start : start + _AT_ONCE]
            rows: dict[str, list[Document]] = {bucket["_id"]: [] for bucket in some}
            for name, row in self._count(list(rows)):
                rows[name].append(row)
            counts.extend(rows.values())
            self._keep(some, rows)
        return counts

    def _keep(self, buckets: Sequence[Document], rows: Mapping[str, list[Document]]) -> None:
        """Caches the counts of buckets that nobody was writing to when they were read, if that is still so."""
        writes = []
        for bucket in buckets:
            found = rows[bucket["_id"]]
            if not bucket["unwritten"] or len(found) > _MOST_ROWS:
                continue
            values = {f"{self._field}.version": bucket["version"], f"{self._field}.rows": found, "writers": {}}
            update = {"$set": values, "$currentDate": {f"{self._field}.at": True}}
            writes.append(UpdateOne({"_id": bucket["_id"], "version": bucket["version"]}, update))
        if writes:
            guarded(lambda: self._counters.bulk_write(writes, ordered=False))


def _living(bucket: Document, now: datetime) -> bool:
    """Whether a process that has not been silent for too long may be writing to the bucket's jobs."""
    return any(now - certain_instant(since) < DEAD_AFTER for since in bucket.get("writers", {}).values())
