"""Which jobs a claim or a query means, as filters and sorts whose fields stand in the order of an index."""

from engine.jobs.queue import ClaimFilter, JobQuery
from engine.jobs.states import JobState
from engine.storage.codec import Line
from engine.storage.mongo.connection import Document
from engine.storage.mongo.documents import LIVE

Sort = list[tuple[str, int]]
_ALL_STATES = [str(state) for state in JobState]


def ready(wanted: ClaimFilter) -> Document:
    """Ready jobs that pass the filter, whoever's if it names no client."""
    condition: Document = {"line": str(Line.READY)}
    if wanted.client_id is not None:
        condition["clientId"] = wanted.client_id
    if wanted.operation is not None:
        condition["operation"] = wanted.operation
    if wanted.model is not None:
        condition["model"] = wanted.model
    if wanted.references:
        condition["references"] = {"$all": list(wanted.references)}
    return condition


def claim_order(wanted: ClaimFilter) -> Sort:
    """By priority, then id: spelled with the fields before them in the index, as Cosmos DB wants it."""
    field = "operation" if wanted.operation is not None else "model" if wanted.model is not None else None
    leading = ["line", field, "clientId"] if field is not None and not wanted.references else ["line", "clientId"]
    return [(name, 1) for name in (*leading, "priority", "_id")]


def matching(query: JobQuery) -> Document:
    """Live jobs that the query means."""
    equal = {
        "clientId": query.client_id,
        "status": None if query.status is None else str(query.status),
        "operation": query.operation,
        "model": query.model,
        "priority": query.priority,
        "id": query.client_job_id,
    }
    condition: Document = {name: value for name, value in equal.items() if value is not None}
    if query.references:
        condition["references"] = {"$all": list(query.references)}
    return {**condition, **LIVE}


def listed(query: JobQuery) -> Document:
    """As `matching`; a client's jobs are listed through the index on client, status and id, over all statuses."""
    condition = matching(query)
    if query.client_id is not None and query.status is None and not is_narrow(query):
        condition["status"] = {"$in": _ALL_STATES}
    return condition


def is_narrow(query: JobQuery) -> bool:
    """Whether the query asks for what is not counted in advance."""
    return bool(query.references) or query.client_job_id is not None or query.priority is not None
