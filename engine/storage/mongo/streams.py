"""Streams: implements engine.records.streams.StreamStore.

A stream is counted in a bucket of its client like a job (see marks.py), so that the usage finds its calls there.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from engine.jobs.queue import Page
from engine.records.streams import Stream, StreamQuery, StreamSums
from engine.storage.mongo.connection import Document
from engine.storage.mongo.documents import join_calls, possible, split_calls
from engine.storage.mongo.faults import guarded, make_durable
from engine.storage.mongo.indexes import STREAMS
from engine.storage.mongo.marks import Marks
from engine.storage.stream_codec import SUMS, stream_from_document, stream_to_document, sums_of

_LEAN = {"userPrompt": 0, "chat": 0, "text": 0, "answer": 0}
_SUMMED: Document = {
    "sampleId": {"$min": "$_id"},
    "status": {"$min": "$status"},
    "count": {"$sum": 1},
    "currency": {"$min": "$currency"},
    "otherCurrency": {"$max": "$otherCurrency"},
    **{name: {"$sum": f"${name}"} for name in SUMS},
}


class MongoStreams:
    """See StreamStore. `marks` are those of the job queue."""

    def __init__(self, database: Database[Document], marks: Marks) -> None:
        self._streams = database[STREAMS]
        self._marks = marks

    def add(self, stream: Stream) -> None:
        document = {**_stored(stream), "bucket": self._marks.place(stream.client_id, 1)}
        try:
            guarded(lambda: self._streams.insert_one(document))
        except DuplicateKeyError:
            make_durable(self._streams)

    def get(self, stream_id: str) -> Stream | None:
        found = self._read({"_id": {"$in": possible([stream_id])}}, Page(limit=1))
        return found[0] if found else None

    def get_many(self, stream_ids: Sequence[str]) -> dict[str, Stream]:
        found = self._read({"_id": {"$in": possible(stream_ids)}}, Page(limit=0), lean=True)
        return {stream.id: stream for stream in found}

    def end(self, stream: Stream) -> bool:
        document = {**_stored(stream), "revision": stream.revision + 1}
        query = {"_id": document.pop("_id"), "revision": stream.revision}
        held = guarded(lambda: self._streams.find_one(query, {"bucket": 1}))
        if held is None:
            return False
        with self._marks.writing([held["bucket"]]):
            return guarded(lambda: self._streams.update_one(query, {"$set": document})).matched_count == 1

    def renew(self, owner: str, expires_at: datetime) -> int:
        change = {"$set": {"leaseUntil": expires_at}}
        return guarded(lambda: self._streams.update_many({"leaseOwner": owner}, change)).matched_count

    def expired(self, now: datetime, limit: int) -> list[Stream]:
        return self._read({"leaseUntil": {"$lte": now}}, Page(limit=limit))

    def find(self, query: StreamQuery, page: Page) -> list[Stream]:
        direction = -1 if page.newest_first else 1
        return self._read(_matching(query), page, order=[("createdAt", direction), ("_id", direction)], lean=True)

    def count(self, query: StreamQuery) -> int:
        return guarded(lambda: self._streams.count_documents(_matching(query)))

    def by_status(self, query: StreamQuery) -> list[StreamSums]:
        return self._sums(query, "$status", [])

    def by_group(self, query: StreamQuery, limit: int) -> list[StreamSums]:
        return self._sums(query, "$group", [{"$sort": {"count": -1, "sampleId": 1}}, {"$limit": limit}])

    def _sums(self, query: StreamQuery, key: str, then: list[Document]) -> list[StreamSums]:
        parts = [{"$match": _matching(query)}, {"$group": {"_id": key, **_SUMMED}}, *then]
        return [sums_of(row) for row in guarded(lambda: list(self._streams.aggregate(parts)))]

    def _read(self, condition: Document, page: Page, *, order: Any = None, lean: bool = False) -> list[Stream]:
        projection = _LEAN if lean else None
        cursor = self._streams.find(condition, projection, sort=order, skip=page.skip, limit=page.limit)
        return [_stream(document) for document in guarded(lambda: list(cursor.clone()))]


def _stored(stream: Stream) -> Document:
    document = stream_to_document(stream)
    split_calls(document)
    return document


def _stream(document: Document) -> Stream:
    join_calls(document)
    return stream_from_document(document)


def _matching(query: StreamQuery) -> Document:
    equal = {"clientId": query.client_id, "model": query.model, "status": query.status}
    condition: Document = {name: value for name, value in equal.items() if value is not None}
    bounds = {"$gte": query.since, "$lte": query.until}
    given = {name: value for name, value in bounds.items() if value is not None}
    if given:
        condition["createdAt"] = given
    if query.references:
        condition["references"] = {"$all": list(query.references)}
    return condition
