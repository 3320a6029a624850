"""Sums over the calls on ledgers, counted per bucket like the jobs themselves: what is on no ledger is in no sum, so a
crash between two writes has nothing to spoil."""

from collections.abc import Sequence

from engine.storage.mongo.buckets import BucketCounts
from engine.storage.mongo.connection import Document, Documents
from engine.storage.mongo.documents import joined
from engine.storage.mongo.faults import guarded
from engine.storage.mongo.marks import Marks
from engine.usage import SUMS, UsageKey, UsageQuery, UsageRow, grouped

_CALL = "$ledger.calls"
_DAY = {"$dateToString": {"format": "%Y-%m-%d", "date": f"{_CALL}.startedAt"}}
_KEY: Document = {
    "bucket": "$bucket",
    "day": _DAY,
    "clientId": "$clientId",
    "model": f"{_CALL}.model",
    "operation": "$operation",
    "currency": f"{_CALL}.currency",
}
_COUNTED = ("inputTokens", "outputTokens", "cachedInputTokens", "reasoningTokens")
_MONEY = ("inputCost", "inputCostHigh", "outputCost", "outputCostHigh")


def _of_outcome(outcome: str) -> Document:
    return {"$sum": {"$cond": [{"$eq": [f"{_CALL}.outcome", outcome]}, 1, 0]}}


_GROUP: Document = {
    "_id": _KEY,
    "calls": {"$sum": 1},
    "errors": _of_outcome("error"),
    "unknown": _of_outcome("unknown"),
    **{name: {"$sum": f"{_CALL}.{name}"} for name in (*_COUNTED, *_MONEY)},
}


class MongoUsage:
    """Implements engine.usage.UsageStore."""

    def __init__(self, jobs: Documents, counters: Documents, marks: Marks) -> None:
        self._jobs = jobs
        self._counts = BucketCounts(counters, marks, "used", self._count)

    def rows(self, query: UsageQuery) -> list[UsageRow]:
        return grouped(map(_entry, self._counts.rows(query.client_id)), query)

    def _count(self, buckets: Sequence[str]) -> list[tuple[str, Document]]:
        called = {"bucket": {"$in": list(buckets)}, "totals.calls": {"$gt": 0}}
        parts: list[Document] = [{"$match": called}, {"$unwind": "$ledger"}, {"$unwind": _CALL}, {"$group": _GROUP}]
        rows = guarded(lambda: list(self._jobs.aggregate(parts)))
        return [(row["_id"].pop("bucket"), {**row.pop("_id"), **row}) for row in rows]


def _entry(row: Document) -> tuple[UsageKey, list[int]]:
    currency = row.get("currency") or ""
    key = UsageKey(row["day"], row["clientId"], row["model"], row["operation"], currency)
    money = [joined(row[f"{name}High"], row[name]) for name in ("inputCost", "outputCost")]
    return key, [*(int(row[name]) for name in SUMS), *money]
