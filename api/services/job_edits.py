"""What a caller's wish makes of a job: pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import orjson

from api.services.job_drafts import check_pairs
from engine.errors import InvalidField, TransitionRefused
from engine.jobs.changes import after_event
from engine.jobs.job import Failure, Job, Lease
from engine.jobs.states import Event, JobState, Surface, requested_event
from engine.llm import JsonObject

DEFAULT_LEASE_SECONDS = 60
LARGEST_DATA = 14 * 1024 * 1024
"""Of all JSON of a job together, in bytes: a document of MongoDB ends at 16 MiB."""

_DATA = {
    "request_data": "requestData",
    "expected": "expected",
    "eval_result": "evalResult",
    "response_data": "responseData",
}
_NEVER_EMPTY = {"operation": "operation", "model": "model", "working_prompts": "workingPrompts"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedFailure:
    """An error as whoever worked on the job tells it; unset parts are filled in."""

    error_type: str | None = None
    message: str | None = None
    raw: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEdit:
    """A wish. `fields` holds new values by the names of Job's fields, `due_at` among them; what is absent stays.

    `lease_seconds` is the length of the lease that a claim takes or an extension gives; `lease_token`, when given,
    must be the current one.
    """

    status: JobState | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    response_data: JsonObject | None = None
    failure: ReportedFailure | None = None
    lease_seconds: int | None = None
    lease_token: int | None = None


@dataclass(frozen=True, slots=True)
class Editor:
    """Who edits: `by` is a client id or `admin`."""

    by: str
    admin: bool

    @property
    def holder(self) -> str:
        """The owner of the leases that this caller takes over REST."""
        return f"rest:{self.by}"


def edited(job: Job, edit: JobEdit, surface: Surface, editor: Editor, now: datetime) -> Job:
    """`job` as `edit` wants it, or `job` itself where nothing is wished for.

    Raises TransitionRefused for a status or a lease that cannot be had, InvalidField for a value.
    """
    _check_token(job, edit)
    changed = _with_fields(job, edit, editor, now) if edit.fields else job
    if edit.status is not None:
        event = requested_event(job.status, edit.status, surface, admin=editor.admin)
        changed = _after(changed, event, edit, editor, now)
    elif edit.lease_seconds is not None:
        changed = _extended(changed, edit, editor, now)
    _check_due(changed, edit)
    _check_size(changed, edit)
    return changed


def _check_token(job: Job, edit: JobEdit) -> None:
    if edit.lease_token is not None and (job.lease is None or job.token != edit.lease_token):
        raise TransitionRefused(f"invalid status transition: lease token {edit.lease_token} is no longer current")


def _with_fields(job: Job, edit: JobEdit, editor: Editor, now: datetime) -> Job:
    for name, shown in _NEVER_EMPTY.items():
        if name in edit.fields and not edit.fields[name]:
            raise InvalidField(shown, "must not be empty")
    changed = replace(job, **edit.fields, metadata=job.metadata.touched(now, editor.by))
    check_pairs(changed)
    return changed


def _check_due(job: Job, edit: JobEdit) -> None:
    if edit.fields.get("due_at") is not None and job.status is not JobState.PENDING:
        raise InvalidField("notBefore", f"only a PENDING job can be put off, and this one is {job.status}")


def _check_size(job: Job, edit: JobEdit) -> None:
    """Before anything is written: of several jobs none is, where one is too large."""
    if edit.response_data is None and not _DATA.keys() & edit.fields.keys():
        return
    size = sum(len(orjson.dumps(getattr(job, name))) for name in _DATA)
    if size > LARGEST_DATA:
        raise InvalidField(", ".join(_DATA.values()), f"larger than {LARGEST_DATA} bytes together")


def _after(job: Job, event: Event, edit: JobEdit, editor: Editor, now: datetime) -> Job:
    if event is Event.CLAIM:
        return _claimed(job, edit, editor, now)
    failure = _failure(job, event, edit.failure, editor, now)
    changed = after_event(job, event, now, by=editor.by, failure=failure)
    if event is Event.COMPLETE:
        response = edit.response_data if edit.response_data is not None else job.response_data
        return replace(changed, response_data=response, failure=None)
    if event is Event.DEAD_LETTER and failure is not None:
        return replace(changed, attempts=failure.attempts)
    if "due_at" in edit.fields and changed.status is JobState.PENDING:
        return replace(changed, due_at=edit.fields["due_at"])
    return changed


def _claimed(job: Job, edit: JobEdit, editor: Editor, now: datetime) -> Job:
    if job.due_at is not None and job.due_at > now:
        due = job.due_at.isoformat()
        raise TransitionRefused(f"invalid status transition from PENDING to PROCESSING: not due before {due}")
    seconds = edit.lease_seconds if edit.lease_seconds is not None else DEFAULT_LEASE_SECONDS
    lease = Lease(editor.holder, now + timedelta(seconds=seconds))
    return replace(after_event(job, Event.CLAIM, now, by=editor.by, lease=lease), due_at=None)


def _extended(job: Job, edit: JobEdit, editor: Editor, now: datetime) -> Job:
    if job.status is not JobState.PROCESSING or job.lease is None:
        raise TransitionRefused(f"invalid status transition: a {job.status} job has no lease to extend")
    if edit.lease_token is None and job.lease.owner != editor.holder:
        raise TransitionRefused("invalid status transition: the lease is held by another worker")
    seconds = edit.lease_seconds if edit.lease_seconds is not None else DEFAULT_LEASE_SECONDS
    lease = replace(job.lease, expires_at=now + timedelta(seconds=seconds))
    return replace(job, lease=lease, metadata=job.metadata.touched(now, editor.by))


_FAILS = {Event.DEAD_LETTER, Event.FORCE_DEAD_LETTER}


def _failure(job: Job, event: Event, told: ReportedFailure | None, editor: Editor, now: datetime) -> Failure | None:
    if event not in _FAILS:
        return None
    told = told or ReportedFailure()
    reported = event is Event.DEAD_LETTER
    charged = min(job.attempts + 1, job.max_attempts) if reported else job.attempts
    return Failure(
        error_type=told.error_type or ("ReportedFailure" if reported else "ForcedByAdmin"),
        message=told.message or f"set to ERROR_PROCESSING by {editor.by}",
        attempts=max(charged, job.attempts),
        at=now,
        raw=told.raw,
    )
