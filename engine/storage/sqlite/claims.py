"""The statements that lease ready jobs: one UPDATE over ids that an index gives in the right order."""

import sqlite3
from dataclasses import replace
from datetime import datetime

from engine.jobs.queue import ClaimFilter, ClaimRequest
from engine.storage.sqlite import counters
from engine.storage.sqlite.conditions import Conditions
from engine.storage.sqlite.rows import COLUMNS, Row, to_ms

_LEASE = (
    "UPDATE jobs SET status = 'PROCESSING', line = 'leased', token = token + 1, revision = revision + 1, "
    "lease_owner = ?, lease_until = ?, updated_at = ?, updated_by = 'worker' "
    f"WHERE rowid IN ({{rows}}) RETURNING {COLUMNS}"
)
_ORDERED = "priority, id, rowid"


def leased(connection: sqlite3.Connection, request: ClaimRequest, now: datetime) -> list[Row]:
    """Leases what `request` means; answers the rows as they are now, in no order."""
    rows, values = _chosen(connection, request)
    lease = (request.owner, to_ms(request.expires_at), to_ms(now))
    found = connection.execute(_LEASE.format(rows=rows), (*lease, *values)).fetchall()
    return [Row._make(row) for row in found]


def _chosen(connection: sqlite3.Connection, request: ClaimRequest) -> tuple[str, tuple[object, ...]]:
    """SQL for the row ids to lease, and its values. Under caps each model is asked for by itself."""
    models = counters.ready_models(connection, request.filter) if request.caps else []
    if request.caps.keys().isdisjoint(models):
        ready, values = _in_order(request.filter, "rowid")
        return f"{ready} LIMIT ?", (*values, request.limit)
    found: list[tuple[int, str, int]] = []
    for model in models:
        limit = min(request.caps.get(model, request.limit), request.limit)
        ready, values = _in_order(replace(request.filter, model=model), _ORDERED)
        found += connection.execute(f"{ready} LIMIT ?", (*values, limit)).fetchall()
    first = tuple(row for _, _, row in sorted(found)[: request.limit])
    return ", ".join("?" * len(first)), first


def any_ready(connection: sqlite3.Connection, wanted: ClaimFilter) -> bool:
    """Whether a claim would find something: what an idle worker asks, without the writer's lock."""
    if not wanted.references:
        return counters.any_ready(connection, wanted)
    ready, values = _in_order(wanted, "1")
    return connection.execute(f"{ready} LIMIT 1", values).fetchone() is not None


def _in_order(wanted: ClaimFilter, what: str) -> tuple[str, tuple[object, ...]]:
    """SELECT `what` of the ready jobs that pass, most urgent first. A filter on references goes by their own index."""
    if wanted.references:
        return _by_reference(wanted, what)
    where = Conditions(client_id=wanted.client_id, operation=wanted.operation, model=wanted.model)
    where.and_("line = 'ready'")
    return f"SELECT {what} FROM jobs INDEXED BY {_index(wanted)}{where} ORDER BY priority, id", where.values


def _index(wanted: ClaimFilter) -> str:
    if wanted.model is not None:
        return "jobs_ready_model"
    return "jobs_ready" if wanted.operation is None else "jobs_ready_operation"


def _by_reference(wanted: ClaimFilter, what: str) -> tuple[str, tuple[object, ...]]:
    first, *others = wanted.references
    where = Conditions(**{"r.text": first, "r.client_id": wanted.client_id}).and_("r.ready = 1")
    for text in others:
        where.and_("EXISTS (SELECT 1 FROM job_references o WHERE o.id = r.id AND o.text = ?)", text)
    where = _and_columns(where.and_("j.line = 'ready'"), wanted)
    source = "job_references r INDEXED BY job_references_ready CROSS JOIN jobs j ON j.id = r.id"
    columns = what if what == "1" else ", ".join(f"j.{name}" for name in what.split(", "))
    return f"SELECT {columns} FROM {source}{where} ORDER BY r.priority, r.id", where.values


def waiting_clients(connection: sqlite3.Connection, wanted: ClaimFilter, after: str, limit: int) -> list[str]:
    """See JobQueue.waiting_clients. With references, the client of the first reference's next ready job, in turn."""
    if not wanted.references:
        return counters.ready_clients(connection, wanted, after, limit)
    found: list[str] = []
    while len(found) < limit:
        client = _next_client(connection, wanted, after)
        if client is None:
            break
        found.append(client)
        after = client
    return found


def _next_client(connection: sqlite3.Connection, wanted: ClaimFilter, after: str) -> str | None:
    where = Conditions(**{"r.text": wanted.references[0], "r.client_id": wanted.client_id})
    where.and_("r.ready = 1").and_("r.client_id > ?", after)
    source = "job_references r INDEXED BY job_references_ready"
    if wanted.operation is not None or wanted.model is not None:
        source += " CROSS JOIN jobs j ON j.id = r.id"
        where = _and_columns(where, wanted)
    row = connection.execute(
        f"SELECT r.client_id FROM {source}{where} ORDER BY r.client_id LIMIT 1", where.values
    ).fetchone()
    return None if row is None else str(row[0])


def _and_columns(where: Conditions, wanted: ClaimFilter) -> Conditions:
    if wanted.operation is not None:
        where.and_("j.operation = ?", wanted.operation)
    if wanted.model is not None:
        where.and_("j.model = ?", wanted.model)
    return where
