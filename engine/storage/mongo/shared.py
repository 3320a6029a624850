"""Documents that replicas change together: read, and replaced where nobody else was faster."""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

import orjson
from pymongo.errors import DuplicateKeyError

from engine.errors import StorageUnavailable
from engine.llm import JsonObject
from engine.shared import Change
from engine.storage.mongo.connection import Document, Documents
from engine.storage.mongo.faults import guarded

_RACES = 100

T = TypeVar("T")


class MongoSharedDocuments:
    """Implements engine.shared.SharedDocuments. The body is JSON text: its keys are anything."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def change(self, key: str, change: Change[T], now: datetime) -> T:
        for _ in range(_RACES):
            found = guarded(lambda: self._documents.find_one({"_id": key}))
            document, answer = change({} if found is None else orjson.loads(found["body"]))
            body = orjson.dumps(document).decode()
            if found is not None and found["body"] == body:
                return answer
            if self._written({"_id": key, "body": body, "writtenAt": now}, found):
                return answer
        raise StorageUnavailable("a shared document is written to all the time")

    def get_many(self, keys: Sequence[str]) -> dict[str, JsonObject]:
        if not keys:
            return {}
        found = guarded(lambda: list(self._documents.find({"_id": {"$in": list(keys)}})))
        return {document["_id"]: orjson.loads(document["body"]) for document in found}

    def forget_idle(self, before: datetime) -> int:
        return guarded(lambda: self._documents.delete_many({"writtenAt": {"$lt": before}})).deleted_count

    def _written(self, document: Document, found: Document | None) -> bool:
        revision = 1 if found is None else found["revision"] + 1
        wanted = {**document, "revision": revision}
        if found is not None:
            query = {"_id": document["_id"], "revision": found["revision"]}
            return guarded(lambda: self._documents.replace_one(query, wanted)).matched_count == 1
        try:
            guarded(lambda: self._documents.insert_one(wanted))
        except DuplicateKeyError:
            return False
        return True
