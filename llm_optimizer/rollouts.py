"""Calls of an evaluation or a run as ordinary jobs: from a specification to a job whose id depends on what it asks, and
from an ended job to what came of it.

The same specification of the same owner is the same job, whoever makes it and however often: inserting it again does
nothing, and an answer that is there already is not paid for twice. So ids are all that has to be known for a resume.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import orjson

from engine.evaluation.judging import JudgeCall
from engine.jobs.job import Job, Totals, totals_of
from engine.jobs.states import JobState
from engine.llm import JsonObject, ResponseFormat
from engine.metadata import Metadata
from engine.records.runs import OPTIMIZER

MAX_ATTEMPTS = 3
"""Of a rollout's job, and of its calls that may cost something where a budget is to be kept."""

_AWAITED = (JobState.PENDING, JobState.PROCESSING)


class Role(StrEnum):
    """What a call is for."""

    WORK = "work"
    EVAL = "eval"
    META = "meta"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose jobs they are. `reference` is the clientReference that all of them have, with the owner's own id.

    The ids of its jobs begin with the instant `planned_at`, so that they are younger than the jobs before it.
    """

    id: str
    client_id: str
    operation: str
    planned_at: datetime
    created_by: str | None
    priority: int
    reference: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSpec:
    """One call: prompts by id, `instructions` after them, and data.

    `tag` tells calls apart that ask the same and are meant to be made several times. `reference` is shown with the job
    and is no part of what it asks.
    """

    role: Role
    model: str
    request_data: JsonObject
    prompts: tuple[str, ...] = ()
    instructions: str | None = None
    temperature: float = 0.0
    response_format: ResponseFormat = "text"
    tag: str = ""
    reference: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def characters(self) -> int:
        """Of what is sent, without the prompts that are named by id."""
        return len(self.instructions or "") + len(orjson.dumps(self.request_data, option=orjson.OPT_INDENT_2))

    @property
    def sent(self) -> int:
        """Bytes of the same."""
        data = orjson.dumps(self.request_data, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
        return len((self.instructions or "").encode()) + len(data)

    @property
    def schema(self) -> int:
        """Bytes of the schema that the answer has to match; 0 without one."""
        if not isinstance(self.response_format, dict):
            return 0
        return len(orjson.dumps(self.response_format, option=orjson.OPT_INDENT_2))


def judge_spec(call: JudgeCall, tag: str, reference: Mapping[str, str | int] | None = None) -> RolloutSpec:
    return RolloutSpec(
        role=Role.EVAL,
        model=call.model,
        instructions=call.instructions,
        request_data=call.request_data,
        temperature=call.temperature,
        response_format=call.response_format,
        tag=tag,
        reference=reference or {},
    )


@dataclass(frozen=True, slots=True)
class Leave:
    """How many calls that may cost something a job may make, and how many tokens each may answer with.

    None does not restrict.
    """

    calls: int | None = None
    output: int | None = None


FREELY = Leave()


def job_id_of(owner: Owner, spec: RolloutSpec) -> str:
    """24 hex characters that depend on the owner and on what is asked."""
    asked = [
        owner.id,
        spec.role,
        spec.model,
        spec.prompts,
        spec.instructions,
        spec.request_data,
        spec.temperature,
        spec.response_format,
        spec.tag,
    ]
    digest = hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS))
    return f"{int(owner.planned_at.timestamp()):08x}{digest.hexdigest()[:16]}"


def job_of(owner: Owner, spec: RolloutSpec, now: datetime, leave: Leave = FREELY) -> Job:
    """The job that makes the call."""
    return Job(
        id=job_id_of(owner, spec),
        client_id=owner.client_id,
        operation=owner.operation,
        working_prompts=spec.prompts,
        instructions=spec.instructions,
        model=spec.model,
        temperature=spec.temperature,
        priority=owner.priority,
        request_data=spec.request_data,
        response_format=spec.response_format,
        max_attempts=MAX_ATTEMPTS,
        most_calls=leave.calls,
        most_output=leave.output,
        client_reference={**owner.reference, "role": str(spec.role), **spec.reference},
        metadata=Metadata(created_at=now, created_by=owner.created_by),
    )


def is_awaited(job: Job) -> bool:
    """Whether the job may still end well."""
    return job.status in _AWAITED


def was_dropped(job: Job) -> bool:
    """Whether its owner took it back."""
    return job.status is JobState.CANCELED and job.metadata.updated_by == OPTIMIZER


def response_of(job: Job) -> JsonObject | None:
    """The answer, also where somebody has consumed or rejected it meanwhile; None where there is none."""
    return None if job.status in (JobState.ERROR_PROCESSING, JobState.CANCELED) else job.response_data


def problem_of(job: Job | None) -> str:
    """Why there is no answer."""
    if job is None:
        return "its job was deleted"
    if job.failure is not None:
        return f"job {job.id} ended in an error: {job.failure.error_type}: {job.failure.message}"
    return f"job {job.id} is {job.status} and has no answer"


def paid(job: Job) -> Totals:
    """The sum of the calls that a provider may charge for: those that it refused or never got are left out."""
    return totals_of(call for attempt in job.ledger for call in attempt.calls if call.may_cost)


def unknown_calls(job: Job) -> tuple[int, int]:
    """Calls of which nobody told what they took; and how many more may have been made by attempts that were lost."""
    untold = sum(call.cost_unknown for attempt in job.ledger for call in attempt.calls)
    return untold, sum(attempt.is_lost for attempt in job.ledger)
