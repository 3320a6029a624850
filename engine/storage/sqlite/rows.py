"""A job as a row: columns for what is queried or changes often, and three JSON texts for the rest.

The JSON texts are parts of the codec's document; put together again they are what the codec reads.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson

from engine.errors import InvalidField, StorageCorrupt
from engine.jobs.job import Job, Totals
from engine.jobs.references import job_texts
from engine.storage.codec import (
    Line,
    job_from_document,
    line_of,
    progress_to_document,
    request_to_document,
    totals_to_document,
)
from engine.storage.sqlite.counters import Place

COLUMNS = (
    "id, client_id, status, line, operation, model, priority, client_job_id, due_at, token, lease_owner, lease_until, "
    "updated_at, updated_by, revision, texts, deleted, totals, progress, body"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
FRESH: Mapping[str, Any] = {
    "attempts": 0,
    "waits": 0,
    "leasesLost": 0,
    "responseData": None,
    "evalResult": None,
    "suggestedPromptId": None,
    "errorData": None,
    "ledger": [],
}
_NO_TOTALS = totals_to_document(Totals())


class Row(NamedTuple):
    """One row of `jobs`, in the order of COLUMNS."""

    id: str
    client_id: str
    status: str
    line: str
    operation: str
    model: str
    priority: int
    client_job_id: str | None
    due_at: int | None
    token: int
    lease_owner: str | None
    lease_until: int | None
    updated_at: int | None
    updated_by: str | None
    revision: int
    texts: int
    deleted: int
    totals: str | None
    progress: str | None
    body: str

    @property
    def place(self) -> Place:
        return Place(self.client_id, self.status, self.line, self.operation, self.model)


def to_ms(instant: datetime) -> int:
    return (instant - _EPOCH) // _MILLISECOND


def from_ms(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)


def instant_of(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else from_ms(milliseconds)


def _ms(instant: datetime | None) -> int | None:
    return None if instant is None else to_ms(instant)


def json_of(document: Mapping[str, Any]) -> str:
    """JSON text of a part of a document; raises InvalidField for what JSON cannot hold."""
    try:
        return orjson.dumps(document).decode()
    except orjson.JSONEncodeError as error:
        raise InvalidField("value", f"cannot be stored: {error}") from error


def row_of(job: Job, now: datetime) -> Row:
    """The whole row; `now` decides whether a PENDING job is ready."""
    progress = progress_to_document(job)
    metadata, lease = job.metadata, job.lease
    return Row(
        id=job.id,
        client_id=job.client_id,
        status=str(job.status),
        line=str(line_of(job, now)),
        operation=job.operation,
        model=job.model,
        priority=job.priority,
        client_job_id=job.client_job_id,
        due_at=_ms(job.due_at),
        token=job.token,
        lease_owner=None if lease is None else lease.owner,
        lease_until=None if lease is None else to_ms(lease.expires_at),
        updated_at=_ms(metadata.updated_at),
        updated_by=metadata.updated_by,
        revision=job.revision,
        texts=0 if metadata.is_deleted else len(job_texts(job)),
        deleted=int(metadata.is_deleted),
        totals=None if job.totals.calls == 0 else json_of(totals_to_document(job.totals)),
        progress=None if progress == FRESH else json_of(progress),
        body=json_of(request_to_document(job)),
    )


def job_of(columns: Sequence[Any]) -> Job:
    """The job of a row read in the order of COLUMNS; raises StorageCorrupt."""
    row = Row._make(columns)
    try:
        return job_from_document(_document_of(row))
    except (KeyError, TypeError, ValueError) as error:
        raise StorageCorrupt(f"job {row.id} cannot be read: {error!r}") from error


def _document_of(row: Row) -> dict[str, Any]:
    document: dict[str, Any] = {**FRESH, **orjson.loads(row.body)}
    if row.progress is not None:
        document.update(orjson.loads(row.progress))
    document["totals"] = _NO_TOTALS if row.totals is None else orjson.loads(row.totals)
    document["_metadata"]["updatedAt"] = instant_of(row.updated_at)
    document["_metadata"]["updatedBy"] = row.updated_by
    document.update(
        _id=row.id,
        clientId=row.client_id,
        status=row.status,
        operation=row.operation,
        model=row.model,
        priority=row.priority,
        id=row.client_job_id,
        dueAt=instant_of(row.due_at),
        token=row.token,
        lease=_lease_document(row),
        revision=row.revision,
    )
    return document


def _lease_document(row: Row) -> dict[str, Any] | None:
    return None if row.lease_owner is None else {"owner": row.lease_owner, "expiresAt": instant_of(row.lease_until)}


def reference_rows(row: Row, texts: Sequence[str]) -> list[tuple[str, str, str, int, bool]]:
    """What job_references holds for a job with these texts."""
    ready = row.line == Line.READY
    return [(row.id, text, row.client_id, row.priority, ready) for text in texts]
