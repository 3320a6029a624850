"""Clients, models, prompts, prompt flows and workers: implements the ports of engine.records.store.

`seq` holds the order of insertion, since not every kind of id rises. `stamp` tells after a repeated write whose it was.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Generic, TypeVar

from pymongo.database import Database
from pymongo.errors import PyMongoError

from engine.errors import Duplicate
from engine.jobs.queue import Page
from engine.records.store import Where
from engine.records.values import Prompt, Worker, WorkerStatus
from engine.storage.mongo.connection import Document
from engine.storage.mongo.documents import LIVE, possible
from engine.storage.mongo.faults import OutcomeUnknown, guarded, make_durable
from engine.storage.record_codec import PROMPTS, WORKERS, Kind, Record
from utilities.ids import ObjectIds, new_uuid

R = TypeVar("R", bound=Record)


class MongoRecords(Generic[R]):
    """One kind of record."""

    def __init__(self, database: Database[Document], kind: Kind[R], ids: ObjectIds) -> None:
        self._records = database[kind.collection]
        self._kind = kind
        self._ids = ids

    def add(self, record: R) -> None:
        document = {**self._kind.to_document(record), "seq": self._ids.new(), "stamp": new_uuid()}
        try:
            guarded(lambda: self._records.insert_one(document))
        except (PyMongoError, OutcomeUnknown) as error:  # the driver's own errors here are duplicates
            if self._is_stored(document):
                return
            if isinstance(error, OutcomeUnknown):
                raise
            raise self._duplicate() from error

    def get(self, record_id: str) -> R | None:
        return self.get_many([record_id]).get(record_id)

    def get_many(self, record_ids: Sequence[str]) -> dict[str, R]:
        if not record_ids:
            return {}
        query = {"_id": {"$in": possible(record_ids)}, **LIVE}
        return {record.id: record for record in self._read(query, Page(limit=0), in_order=False)}

    def compare_and_set(self, record: R) -> bool:
        document = {**self._kind.to_document(record), "revision": record.revision + 1, "stamp": new_uuid()}
        query = {"_id": document.pop("_id"), "revision": record.revision, **LIVE}
        try:
            written = guarded(lambda: self._records.update_one(query, {"$set": document})).matched_count == 1
        except OutcomeUnknown:
            written = False
        except PyMongoError as error:  # only a duplicate comes through
            raise self._duplicate() from error
        return written or self._is_stored({"_id": record.id, **document})

    def find(self, where: Where, page: Page) -> list[R]:
        condition = _condition(where)
        if where.after is not None:
            found = guarded(lambda: self._records.find_one({"_id": {"$in": possible([where.after or ""])}}, {"seq": 1}))
            if found is None:
                return []
            condition["seq"] = {"$lt" if page.newest_first else "$gt": found["seq"]}
        return self._read(condition, page, in_order=True)

    def count(self, where: Where) -> int:
        return guarded(lambda: self._records.count_documents(_condition(where)))

    def _read(self, condition: Document, page: Page, *, in_order: bool) -> list[R]:
        order = [("seq", -1 if page.newest_first else 1)] if in_order else None
        cursor = self._records.find(condition, sort=order, skip=page.skip, limit=page.limit)
        return [self._kind.from_document(document) for document in guarded(lambda: list(cursor.clone()))]

    def _is_stored(self, document: Document) -> bool:
        """Whether this very write has been done."""
        query = {"_id": document["_id"], "stamp": document["stamp"]}
        found = guarded(lambda: self._records.find_one(query, {"_id": 1}))
        make_durable(self._records)
        return found is not None

    def _duplicate(self) -> Duplicate:
        return Duplicate(f"{self._kind.noun} already exists")


class MongoPrompts(MongoRecords[Prompt]):
    def __init__(self, database: Database[Document], ids: ObjectIds) -> None:
        super().__init__(database, PROMPTS, ids)

    def highest_version(self, name: str, kind: str, client_id: str | None) -> int:
        """Comparing with a number finds numbers only, so text versions stay out."""
        query = {"name": name, "type": kind, "clientId": client_id, "version": {"$gt": 0}, **LIVE}
        order = [("name", -1), ("type", -1), ("clientId", -1), ("version", -1)]
        found = guarded(lambda: self._records.find_one(query, {"version": 1}, sort=order))
        return 0 if found is None else int(found["version"])


class MongoWorkers(MongoRecords[Worker]):
    def __init__(self, database: Database[Document], ids: ObjectIds) -> None:
        super().__init__(database, WORKERS, ids)

    def running(self) -> list[Worker]:
        return self._read({"status": str(WorkerStatus.RUNNING), **LIVE}, Page(limit=0), in_order=True)

    def renew(self, owner: str, expires_at: datetime) -> int:
        query = {"status": str(WorkerStatus.RUNNING), "lease.owner": owner, **LIVE}
        change = {"$set": {"lease.expiresAt": expires_at}, "$inc": {"revision": 1}}
        return guarded(lambda: self._records.update_many(query, change)).matched_count


def _condition(where: Where) -> Document:
    condition: Document = {**LIVE}
    for name, values in where.equals.items():
        condition[name] = values[0] if len(values) == 1 else {"$in": list(values)}
    if where.visible_to is not None:
        condition["$or"] = [{"isPublic": True}, {"clientId": where.visible_to}]
    return condition
