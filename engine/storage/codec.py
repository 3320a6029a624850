"""Domain values to documents and back: the only place that spells the wire names of what is stored.

A document is a dict of BSON- and JSON-safe values: instants are aware datetimes (or ISO texts, when read from JSON),
money is a whole number of pricing.QUANTUM, and free-form JSON (requestData and the like) is kept as JSON text, so that
any JSON comes back exactly as it came in, whatever its keys, depth or numbers are and whatever the back-end forbids.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

import orjson
import structlog

from engine.errors import InvalidField, StorageCorrupt
from engine.jobs.job import Attempt, Call, Failure, Job, Lease, Totals
from engine.jobs.references import job_texts
from engine.jobs.states import JobState
from engine.llm import Complaint
from engine.metadata import Metadata
from engine.pricing import from_units, to_units

Document = dict[str, Any]
S = TypeVar("S")

log = structlog.get_logger(__name__)


class Line(StrEnum):
    """Where a job stands in the queue: a back-end's own field beside the status."""

    READY = "ready"
    LATER = "later"
    LEASED = "leased"
    NONE = "none"


def line_of(job: Job, now: datetime) -> Line:
    """Derived from the job; a deleted job stands nowhere."""
    if job.metadata.is_deleted:
        return Line.NONE
    if job.status is JobState.PROCESSING:
        return Line.LEASED
    if job.status is not JobState.PENDING:
        return Line.NONE
    return Line.LATER if job.due_at is not None and job.due_at > now else Line.READY


def json_text(value: Any) -> str | None:
    """JSON text of a free-form value; None stays None. Raises InvalidField for what JSON text cannot hold."""
    try:
        return None if value is None else orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError as error:
        raise InvalidField("value", f"cannot be stored: {error}") from error


def json_value(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)


def instant(value: Any) -> datetime | None:
    """An aware UTC datetime from a datetime, an ISO text or None."""
    if value is None:
        return None
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def certain_instant(value: Any) -> datetime:
    moment = instant(value)
    if moment is None:
        raise StorageCorrupt("a stored document lacks an instant that it must have")
    return moment


def metadata_to_document(metadata: Metadata) -> Document:
    return {
        "isDeleted": metadata.is_deleted,
        "createdAt": metadata.created_at,
        "updatedAt": metadata.updated_at,
        "deletedAt": metadata.deleted_at,
        "archivedAt": metadata.archived_at,
        "createdBy": metadata.created_by,
        "updatedBy": metadata.updated_by,
        "deletedBy": metadata.deleted_by,
    }


def metadata_from_document(document: Mapping[str, Any]) -> Metadata:
    return Metadata(
        created_at=certain_instant(document["createdAt"]),
        updated_at=instant(document.get("updatedAt")),
        deleted_at=instant(document.get("deletedAt")),
        archived_at=instant(document.get("archivedAt")),
        created_by=document.get("createdBy"),
        updated_by=document.get("updatedBy"),
        deleted_by=document.get("deletedBy"),
    )


def call_to_document(call: Call) -> Document:
    return {
        "step": call.step,
        "model": call.model,
        "startedAt": call.started_at,
        "duration": call.duration,
        "outcome": call.outcome,
        "inputTokens": call.input_tokens,
        "outputTokens": call.output_tokens,
        "cachedInputTokens": call.cached_input_tokens,
        "reasoningTokens": call.reasoning_tokens,
        "inputCost": None if call.input_cost is None else to_units(call.input_cost),
        "outputCost": None if call.output_cost is None else to_units(call.output_cost),
        "currency": call.currency,
        "errorType": call.error_type,
        "requestId": call.request_id,
    }


def call_from_document(document: Mapping[str, Any]) -> Call:
    return Call(
        step=document["step"],
        model=document["model"],
        started_at=certain_instant(document["startedAt"]),
        duration=document["duration"],
        outcome=document["outcome"],
        input_tokens=document["inputTokens"],
        output_tokens=document["outputTokens"],
        cached_input_tokens=document["cachedInputTokens"],
        reasoning_tokens=document["reasoningTokens"],
        input_cost=None if document["inputCost"] is None else from_units(document["inputCost"]),
        output_cost=None if document["outputCost"] is None else from_units(document["outputCost"]),
        currency=document["currency"],
        error_type=document["errorType"],
        request_id=document["requestId"],
    )


def attempt_to_document(attempt: Attempt) -> Document:
    return {
        "token": attempt.token,
        "owner": attempt.owner,
        "startedAt": attempt.started_at,
        "endedAt": attempt.ended_at,
        "outcome": attempt.outcome,
        "charged": attempt.charged,
        "errorType": attempt.error_type,
        "errorMessage": attempt.error_message,
        "calls": [call_to_document(call) for call in attempt.calls],
    }


def attempt_from_document(document: Mapping[str, Any]) -> Attempt:
    return Attempt(
        token=document["token"],
        owner=document["owner"],
        started_at=certain_instant(document["startedAt"]),
        ended_at=instant(document["endedAt"]),
        outcome=document["outcome"],
        charged=document["charged"],
        error_type=document["errorType"],
        error_message=document["errorMessage"],
        calls=tuple(call_from_document(call) for call in document["calls"]),
    )


def failure_to_document(failure: Failure | None) -> Document | None:
    if failure is None:
        return None
    return {
        "errorType": failure.error_type,
        "errorMessage": failure.message,
        "attempts": failure.attempts,
        "failedResponseData": failure.raw,
        "timestamp": failure.at,
        "status": failure.status,
        "complaint": None if failure.complaint is None else asdict(failure.complaint),
    }


def failure_from_document(document: Mapping[str, Any] | None) -> Failure | None:
    if document is None:
        return None
    told = document.get("complaint")
    complaint = None if told is None else Complaint(type=told["type"], code=told["code"], param=told["param"])
    return Failure(
        error_type=document["errorType"],
        message=document["errorMessage"],
        attempts=document["attempts"],
        raw=document["failedResponseData"],
        at=certain_instant(document["timestamp"]),
        status=document.get("status"),
        complaint=complaint,
    )


def totals_to_document(totals: Totals) -> Document:
    return {
        "calls": totals.calls,
        "inputTokens": totals.input_tokens,
        "outputTokens": totals.output_tokens,
        "duration": totals.duration,
        "inputCost": to_units(totals.input_cost),
        "outputCost": to_units(totals.output_cost),
        "currencies": sorted(totals.currencies),
    }


def totals_from_document(document: Mapping[str, Any]) -> Totals:
    return Totals(
        calls=document["calls"],
        input_tokens=document["inputTokens"],
        output_tokens=document["outputTokens"],
        duration=document["duration"],
        input_cost=from_units(document["inputCost"]),
        output_cost=from_units(document["outputCost"]),
        currencies=frozenset(document["currencies"]),
    )


def lease_to_document(lease: Lease | None) -> Document | None:
    return None if lease is None else {"owner": lease.owner, "expiresAt": lease.expires_at}


def lease_from_document(document: Mapping[str, Any] | None) -> Lease | None:
    return None if document is None else Lease(document["owner"], certain_instant(document["expiresAt"]))


def request_to_document(job: Job) -> Document:
    """The part of the stored form that says what was asked for, and what no query or claim looks at."""
    return {
        "workingPrompts": job.working_prompts,
        "temperature": job.temperature,
        "requestData": json_text(job.request_data),
        "clientReference": json_text(job.client_reference),
        "evalPrompt": job.eval_prompt,
        "evalModel": job.eval_model,
        "evaluator": job.evaluator,
        "expected": json_text(job.expected),
        "metaPrompt": job.meta_prompt,
        "metaModel": job.meta_model,
        "responseFormat": json_text(job.response_format),
        "endpoint": job.endpoint,
        "instructions": job.instructions,
        "promptFlow": job.prompt_flow,
        "canary": job.canary,
        "canaryTrial": job.canary_trial,
        "maxAttempts": job.max_attempts,
        "pins": json_text(job.pins),
        "mostCalls": job.most_calls,
        "mostOutput": job.most_output,
        "_metadata": metadata_to_document(job.metadata),
    }


def progress_to_document(job: Job) -> Document:
    """The part of the stored form that says what has happened to the job since."""
    return {
        "attempts": job.attempts,
        "waits": job.waits,
        "leasesLost": job.leases_lost,
        "responseData": json_text(job.response_data),
        "evalResult": json_text(job.eval_result),
        "suggestedPromptId": job.suggested_prompt_id,
        "errorData": failure_to_document(job.failure),
        "ledger": [attempt_to_document(attempt) for attempt in job.ledger],
    }


def job_to_document(job: Job, now: datetime) -> Document:
    """The whole stored form. `now` decides whether a PENDING job is ready (see Line)."""
    return {
        "_id": job.id,
        "clientId": job.client_id,
        "status": str(job.status),
        "line": str(line_of(job, now)),
        "operation": job.operation,
        "model": job.model,
        "priority": job.priority,
        "id": job.client_job_id,
        "references": list(job_texts(job)),
        "dueAt": job.due_at,
        "token": job.token,
        "lease": lease_to_document(job.lease),
        "totals": totals_to_document(job.totals),
        "revision": job.revision,
        **request_to_document(job),
        **progress_to_document(job),
    }


def job_from_document(document: Mapping[str, Any]) -> Job:
    """The job of a stored document; raises StorageCorrupt naming the document where it cannot be read."""
    try:
        return _job(document)
    except (KeyError, TypeError, ValueError) as error:
        raise StorageCorrupt(f"job {document.get('_id')} cannot be read: {error!r}") from error


def readable(stored: Iterable[S], read: Callable[[S], Job]) -> list[Job]:
    """The jobs among `stored` that can be read: for the queue's own work, which one bad document must not stop."""
    jobs = []
    for each in stored:
        try:
            jobs.append(read(each))
        except StorageCorrupt as error:
            log.warning("job_unreadable", reason=str(error))
    return jobs


def _job(document: Mapping[str, Any]) -> Job:
    return Job(
        id=str(document["_id"]),
        client_id=document["clientId"],
        status=JobState(document["status"]),
        operation=document["operation"],
        working_prompts=tuple(document["workingPrompts"]),
        model=document["model"],
        temperature=document["temperature"],
        priority=document["priority"],
        client_job_id=document["id"],
        request_data=json_value(document["requestData"]),
        client_reference=json_value(document["clientReference"]),
        eval_prompt=document["evalPrompt"],
        eval_model=document["evalModel"],
        evaluator=document.get("evaluator"),
        expected=json_value(document.get("expected")),
        meta_prompt=document["metaPrompt"],
        meta_model=document["metaModel"],
        response_format=json_value(document["responseFormat"]),
        endpoint=document.get("endpoint"),
        instructions=document.get("instructions"),
        prompt_flow=document.get("promptFlow"),
        canary=document.get("canary"),
        canary_trial=document.get("canaryTrial"),
        max_attempts=document["maxAttempts"],
        pins=json_value(document.get("pins")),
        most_calls=document.get("mostCalls"),
        most_output=document.get("mostOutput"),
        due_at=instant(document["dueAt"]),
        token=document["token"],
        lease=lease_from_document(document["lease"]),
        attempts=document["attempts"],
        waits=document["waits"],
        leases_lost=document["leasesLost"],
        response_data=json_value(document["responseData"]),
        eval_result=json_value(document["evalResult"]),
        suggested_prompt_id=document["suggestedPromptId"],
        failure=failure_from_document(document["errorData"]),
        ledger=tuple(attempt_from_document(attempt) for attempt in document["ledger"]),
        totals=totals_from_document(document["totals"]),
        metadata=metadata_from_document(document["_metadata"]),
        revision=document["revision"],
    )
