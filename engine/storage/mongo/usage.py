"""Sums over the calls on ledgers, counted per bucket like the jobs themselves: what is on no ledger is in no sum, so a
crash between two writes has nothing to spoil."""

from collections.abc import Sequence

from engine.storage.mongo.buckets import BucketCounts
from engine.storage.mongo.connection import Document, Documents
from engine.storage.mongo.documents import joined
from engine.storage.mongo.faults import guarded
from engine.storage.mongo.marks import Marks
from engine.usage import SUMS, UsageKey, UsageQuery, UsageRow, grouped

_OF_JOBS, _OF_STREAMS = "$ledger.calls", "$calls"
_COUNTED = ("inputTokens", "outputTokens", "cachedInputTokens", "reasoningTokens")
_MONEY = ("inputCost", "inputCostHigh", "outputCost", "outputCostHigh")


def _of_outcome(call: str, outcome: str) -> Document:
    return {"$sum": {"$cond": [{"$eq": [f"{call}.outcome", outcome]}, 1, 0]}}


def _group(call: str) -> Document:
    """Of unwound calls, which `call` names."""
    key: Document = {
        "bucket": "$bucket",
        "day": {"$dateToString": {"format": "%Y-%m-%d", "date": f"{call}.startedAt"}},
        "clientId": "$clientId",
        "model": f"{call}.model",
        "operation": "$operation",
        "currency": f"{call}.currency",
    }
    return {
        "_id": key,
        "calls": {"$sum": 1},
        "errors": _of_outcome(call, "error"),
        "unknown": _of_outcome(call, "unknown"),
        **{name: {"$sum": f"{call}.{name}"} for name in (*_COUNTED, *_MONEY)},
    }


class MongoUsage:
    """Implements engine.usage.UsageStore."""

    def __init__(self, jobs: Documents, streams: Documents, counters: Documents, marks: Marks) -> None:
        self._jobs = jobs
        self._streams = streams
        self._counts = BucketCounts(counters, marks, "used", self._count)

    def rows(self, query: UsageQuery) -> list[UsageRow]:
        return grouped(map(_entry, self._counts.rows(query.client_id)), query)

    def _count(self, buckets: Sequence[str]) -> list[tuple[str, Document]]:
        among: Document = {"bucket": {"$in": list(buckets)}}
        called = {**among, "totals.calls": {"$gt": 0}}
        unwound: list[Document] = [{"$unwind": "$ledger"}, {"$unwind": _OF_JOBS}]
        of_jobs: list[Document] = [{"$match": called}, *unwound, {"$group": _group(_OF_JOBS)}]
        of_streams: list[Document] = [{"$match": among}, {"$unwind": _OF_STREAMS}, {"$group": _group(_OF_STREAMS)}]
        rows = guarded(lambda: list(self._jobs.aggregate(of_jobs)))
        rows += guarded(lambda: list(self._streams.aggregate(of_streams)))
        return [(row["_id"].pop("bucket"), {**row.pop("_id"), **row}) for row in rows]


def _entry(row: Document) -> tuple[UsageKey, list[int]]:
    currency = row.get("currency") or ""
    key = UsageKey(row["day"], row["clientId"], row["model"], row["operation"], currency)
    money = [joined(row[f"{name}High"], row[name]) for name in ("inputCost", "outputCost")]
    return key, [*(int(row[name]) for name in SUMS), *money]
