"""Exact counts and sums over any number of jobs, from cached counts of buckets (see buckets.py)."""

from collections.abc import Iterable, Sequence

from engine.jobs.job import ZERO
from engine.jobs.queue import JobQuery, SummaryRow
from engine.jobs.states import JobState
from engine.pricing import from_units
from engine.storage.mongo.buckets import BucketCounts
from engine.storage.mongo.connection import Document, Documents
from engine.storage.mongo.documents import LIVE, joined
from engine.storage.mongo.faults import guarded
from engine.storage.mongo.marks import Marks

_SUMS = ("inputTokens", "outputTokens", "duration", "inputCost", "inputCostHigh", "outputCost", "outputCostHigh")


class Tallies:
    """Counts the jobs."""

    def __init__(self, jobs: Documents, counters: Documents, marks: Marks) -> None:
        self._jobs = jobs
        self._counts = BucketCounts(counters, marks, "counted", self._count)

    def rows(self, query: JobQuery) -> list[SummaryRow]:
        """For a query by client, status, operation and model only."""
        return merged(row for row in self._counts.rows(query.client_id) if _passes(row, query))

    def scanned(self, condition: Document) -> list[SummaryRow]:
        """For any condition: reads every job that meets it."""
        return merged(_flat(row) for row in self._group(condition, {}))

    def _count(self, buckets: Sequence[str]) -> list[tuple[str, Document]]:
        rows = self._group({"bucket": {"$in": list(buckets)}, **LIVE}, {"bucket": "$bucket"})
        return [(row["_id"].pop("bucket"), _flat(row)) for row in rows]

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


def _flat(row: Document) -> Document:
    """A row of the server's grouping as it is cached."""
    key = row.pop("_id")
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
