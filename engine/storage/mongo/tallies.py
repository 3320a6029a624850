"""Exact counts and sums over any number of jobs, from cached counts of buckets. See marks.py for when those hold."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from pymongo import UpdateOne

from engine.jobs.job import ZERO
from engine.jobs.queue import JobQuery, SummaryRow
from engine.jobs.states import JobState
from engine.pricing import from_units
from engine.storage.codec import certain_instant
from engine.storage.mongo.clock import server_time
from engine.storage.mongo.connection import FOLLOWED, Document, Documents
from engine.storage.mongo.documents import LIVE, joined
from engine.storage.mongo.faults import guarded
from engine.storage.mongo.marks import DEAD_AFTER, Marks
from engine.storage.mongo.turns import Turns

_AT_ONCE = 8
"""Buckets recounted by one command: it stays far below the driver's time limit."""
_MOST_ROWS = 2000
"""A bucket with more kinds of rows than this is counted anew each time rather than cached."""
_OLDEST = timedelta(hours=1)
"""Each summary recounts one bucket whose count is older than this: what heals a count that should not have held."""

_SUMS = ("inputTokens", "outputTokens", "duration", "inputCost", "inputCostHigh", "outputCost", "outputCostHigh")
_ADDED = ("count", "measured", *_SUMS)


class Tallies:
    """Counts the jobs. One recount at a time per process: whoever waits finds the count made."""

    def __init__(self, jobs: Documents, counters: Documents, marks: Marks) -> None:
        self._jobs = jobs
        self._counters = counters.with_options(write_concern=FOLLOWED)
        self._marks = marks
        self._turns = Turns()

    def rows(self, query: JobQuery) -> list[SummaryRow]:
        """For a query by client, status, operation and model only."""
        with self._turns.taken():
            self._marks.end_idle()
            cached, doubtful = self._buckets(query.client_id)
            counted = self._recounted(doubtful)
        every = (row for rows in (*cached, *counted) for row in rows)
        return merged(row for row in every if _passes(row, query))

    def scanned(self, condition: Document) -> list[SummaryRow]:
        """For any condition: reads every job that meets it."""
        return merged(_flat(row) for row in self._group(condition, {}))

    def _buckets(self, client_id: str | None) -> tuple[list[list[Document]], list[Document]]:
        """The rows of the buckets whose count holds, and the other buckets."""
        query = {} if client_id is None else {"clientId": client_id}
        now = server_time(self._counters.database)
        buckets: list[Document] = guarded(lambda: list(self._counters.find(query)))
        sure = [bucket for bucket in buckets if _holds(bucket, now)]
        doubtful = [bucket for bucket in buckets if not _holds(bucket, now)]
        if sure:
            oldest = min(sure, key=lambda bucket: bucket["counted"]["at"])
            if now - certain_instant(oldest["counted"]["at"]) > _OLDEST:
                sure.remove(oldest)
                doubtful.append(oldest)
        for bucket in doubtful:
            bucket["unwritten"] = not _living(bucket, now)
        return [bucket["counted"]["rows"] for bucket in sure], doubtful

    def _recounted(self, buckets: Sequence[Document]) -> list[list[Document]]:
        counts: list[list[Document]] = []
        for start in range(0, len(buckets), _AT_ONCE):
            some = buckets[start : start + _AT_ONCE]
            rows = self._count(some)
            counts.extend(rows.values())
            self._keep(some, rows)
        return counts

    def _count(self, buckets: Sequence[Document]) -> dict[str, list[Document]]:
        rows: dict[str, list[Document]] = {bucket["_id"]: [] for bucket in buckets}
        for row in self._group({"bucket": {"$in": list(rows)}, **LIVE}, {"bucket": "$bucket"}):
            rows[row["_id"]["bucket"]].append(_flat(row))
        return rows

    def _group(self, condition: Document, by: Document) -> list[Document]:
        key = {
            **by,
            "status": "$status",
            "operation": "$operation",
            "model": "$model",
            "currencies": "$totals.currencies",
        }
        sums = {name: {"$sum": f"$totals.{name}"} for name in _SUMS}
        measured = {"$sum": {"$cond": [{"$gt": ["$totals.calls", 0]}, 1, 0]}}
        group = {"_id": key, "count": {"$sum": 1}, "measured": measured, **sums}
        return guarded(lambda: list(self._jobs.aggregate([{"$match": condition}, {"$group": group}])))

    def _keep(self, buckets: Sequence[Document], rows: Mapping[str, list[Document]]) -> None:
        """Caches the counts of buckets that nobody was writing to when they were read, if that is still so."""
        writes = []
        for bucket in buckets:
            found = rows[bucket["_id"]]
            if not bucket["unwritten"] or len(found) > _MOST_ROWS:
                continue
            values = {"counted.version": bucket["version"], "counted.rows": found, "writers": {}}
            update = {"$set": values, "$currentDate": {"counted.at": True}}
            writes.append(UpdateOne({"_id": bucket["_id"], "version": bucket["version"]}, update))
        if writes:
            guarded(lambda: self._counters.bulk_write(writes, ordered=False))


def _holds(bucket: Document, now: datetime) -> bool:
    counted = bucket.get("counted")
    return counted is not None and counted["version"] == bucket["version"] and not _living(bucket, now)


def _living(bucket: Document, now: datetime) -> bool:
    """Whether a process that has not been silent for too long may be writing to the bucket's jobs."""
    return any(now - certain_instant(since) < DEAD_AFTER for since in bucket.get("writers", {}).values())


def _flat(row: Document) -> Document:
    """A row of the server's grouping as it is cached."""
    key = row.pop("_id")
    key.pop("bucket", None)
    return {**key, **row}


def _passes(row: Document, query: JobQuery) -> bool:
    wanted = {"status": query.status, "operation": query.operation, "model": query.model}
    return all(value is None or row[name] == value for name, value in wanted.items())


def merged(rows: Iterable[Document]) -> list[SummaryRow]:
    """Rows of the same status and set of currencies added up; money in integers until the end."""
    sums: dict[tuple[str, frozenset[str]], Document] = {}
    for row in rows:
        into = sums.setdefault(
            (row["status"], frozenset(row["currencies"])), dict.fromkeys(("count", "measured", *_SUMS), 0)
        )
        for name in into:
            into[name] += row[name]
    return [_summary_row(status, currencies, row) for (status, currencies), row in sorted(sums.items(), key=str)]


def _summary_row(status: str, currencies: frozenset[str], row: Document) -> SummaryRow:
    priced = bool(currencies)
    return SummaryRow(
        status=JobState(status),
        currencies=currencies,
        count=int(row["count"]),
        measured=int(row["measured"]),
        input_tokens=int(row["inputTokens"]),
        output_tokens=int(row["outputTokens"]),
        duration=float(row["duration"]),
        input_cost=from_units(joined(row["inputCostHigh"], row["inputCost"])) if priced else ZERO,
        output_cost=from_units(joined(row["outputCostHigh"], row["outputCost"])) if priced else ZERO,
    )
