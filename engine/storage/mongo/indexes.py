"""Every index, made at start; `tests/architecture/test_mongo_plans.py` proves that the queries use them.

MongoDB's are partial where most jobs need no entry: an insert pays about four microseconds for each entry. Cosmos DB
has no partial indexes, no compound ones on arrays or nested fields, and makes unique ones on empty collections only.
"""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import pymongo
from pymongo import ASCENDING, IndexModel
from pymongo.database import Database

from engine.storage.batch_codec import BATCHES, FILES
from engine.storage.codec import Line
from engine.storage.dataset_codec import DATASET_PARTS, DATASETS, EVALUATORS
from engine.storage.evaluations_codec import EVALUATION_PARTS, EVALUATIONS
from engine.storage.mongo.connection import INDEX_SECONDS, Document
from engine.storage.mongo.faults import guarded
from engine.storage.record_codec import CLIENTS, MODELS, PROMPT_FLOWS, PROMPTS, WORKERS, Kind
from engine.storage.run_codec import RUNS
from engine.storage.search_codec import RUN_PARTS

JOBS = "jobs"
IDEMPOTENCY = "idempotency"
COUNTERS = "counters"
SHARED = "shared"
STREAMS = "streams"
CHUNKS = "fileChunks"
KINDS: tuple[Kind[Any], ...] = (
    CLIENTS,
    MODELS,
    PROMPTS,
    PROMPT_FLOWS,
    WORKERS,
    RUNS,
    FILES,
    BATCHES,
    RUN_PARTS,
    DATASETS,
    DATASET_PARTS,
    EVALUATORS,
    EVALUATIONS,
    EVALUATION_PARTS,
)

_READY: Document = {"line": str(Line.READY)}
_ON_MONGODB: tuple[tuple[tuple[str, ...], Document | None], ...] = (
    (("line", "clientId", "priority", "_id"), _READY),
    (("line", "operation", "clientId", "priority", "_id"), _READY),
    (("line", "model", "clientId", "priority", "_id"), _READY),
    (("line", "references", "clientId", "priority", "_id"), {"references": {"$exists": True}}),
    (("line", "wakeAt"), {"wakeAt": {"$exists": True}}),
    (("clientId", "status", "_id"), None),
    (("bucket",), None),
    (("id", "_id"), {"id": {"$exists": True}}),
    (("references", "_id"), {"references": {"$exists": True}}),
)
_ON_COSMOS: tuple[tuple[str, ...], ...] = (
    ("line", "clientId", "priority", "_id"),
    ("line", "operation", "clientId", "priority", "_id"),
    ("line", "model", "clientId", "priority", "_id"),
    ("line", "wakeAt"),
    ("clientId", "status", "_id"),
    ("bucket",),
    ("id",),
    ("references",),
)
_OF_STREAMS: tuple[tuple[str, ...], ...] = (
    ("clientId", "createdAt", "_id"),
    ("createdAt", "_id"),
    ("leaseOwner",),
    ("leaseUntil",),
    ("bucket",),
)


def make_indexes(database: Database[Document], *, cosmos: bool) -> None:
    """Create what is missing. Building one on a large collection may take minutes, so the usual limit is lifted;
    Cosmos DB builds in the background."""
    with nullcontext() if cosmos else pymongo.timeout(INDEX_SECONDS):
        for name, models in _all(cosmos=cosmos).items():
            _create(database, name, models)


def _create(database: Database[Document], name: str, models: list[IndexModel]) -> None:
    guarded(lambda: database[name].create_indexes(models))


def _all(*, cosmos: bool) -> Mapping[str, list[IndexModel]]:
    records = {kind.collection: _record_indexes(kind) for kind in KINDS}
    own = {
        IDEMPOTENCY: [_index(("expiresAt",))],
        COUNTERS: [_index(("clientId", "size"))],
        SHARED: [_index(("writtenAt",))],
        STREAMS: [_index(fields) for fields in _OF_STREAMS],
    }
    return {JOBS: _job_indexes(cosmos=cosmos), **records, **own}


def _job_indexes(*, cosmos: bool) -> list[IndexModel]:
    if cosmos:
        return [_index(fields) for fields in _ON_COSMOS]
    return [_index(fields, partial) for fields, partial in _ON_MONGODB]


def _record_indexes(kind: Kind[Any]) -> list[IndexModel]:
    """Unique keys, insertion order, and insertion order within each field that is asked for by equality."""
    fields = dict.fromkeys(kind.indexed)
    if kind.collection in (PROMPTS.collection, PROMPT_FLOWS.collection):
        fields["isPublic"] = None
    models = [IndexModel([("uniqueKey", ASCENDING)], unique=True), _index(("seq",))]
    models += [_index((field, "seq")) for field in fields]
    if kind.collection == PROMPTS.collection:
        models.append(_index(("name", "type", "clientId", "version")))
    return models


def _index(fields: Iterable[str], partial: Document | None = None) -> IndexModel:
    keys = [(field, ASCENDING) for field in fields]
    return IndexModel(keys) if partial is None else IndexModel(keys, partialFilterExpression=partial)
