"""Why a job is where it is, as it is shown."""

from typing import Any

from api.models.base import Answer
from api.models.job_answer import Wire, attempt_to_wire, call_to_wire, failure_to_wire, lease_to_wire
from api.models.worker import config_to_wire
from api.services.explain import Candidate, Explanation
from engine.jobs.states import JobState
from engine.llm import JsonObject
from engine.records.values import WorkerScope


class JobExplanation(Answer):
    """`reason` is one stable word, `text` says the same to people.

    Reasons: due_later, backing_off, budget_exhausted, no_worker, no_worker_fits, workers_stopped, model_paused, in_line
    (PENDING); held, lease_expired (PROCESSING); else the status in lower case. `workers` are those that might take the
    job, running ones first.
    """

    job_id: str
    status: JobState
    reason: str
    text: str
    due_at: str | None
    lease: JsonObject | None
    lease_token: int | None
    position: JsonObject | None
    workers: list[JsonObject]
    more_workers: bool
    problems: list[str]
    charged_attempts: int
    max_attempts: int
    waits: int
    leases_lost: int
    attempts: list[JsonObject]
    last_error: JsonObject | None
    since: str


def explanation_to_wire(explanation: Explanation, *, admin: bool) -> Wire:
    """The fields of JobExplanation. Workers that serve all clients keep their names to admins."""
    job = explanation.job
    position = explanation.position
    waiting = job.status is JobState.PENDING
    return {
        "jobId": job.id,
        "status": job.status,
        "reason": explanation.reason,
        "text": explanation.text,
        "dueAt": job.due_at if waiting else None,
        "lease": lease_to_wire(job.lease),
        "leaseToken": None if job.lease is None else job.token,
        "position": None if position is None else {"ahead": position.ahead, "capped": position.capped},
        "workers": [_candidate_to_wire(candidate, admin=admin) for candidate in explanation.candidates],
        "moreWorkers": explanation.more_workers,
        "problems": explanation.problems,
        "chargedAttempts": job.attempts,
        "maxAttempts": job.max_attempts,
        "waits": job.waits,
        "leasesLost": job.leases_lost,
        "attempts": [
            {**attempt_to_wire(attempt), "steps": [call_to_wire(call, attempt) for call in attempt.calls]}
            for attempt in job.ledger
        ],
        "lastError": failure_to_wire(job.failure),
        "since": job.metadata.updated_at or job.metadata.created_at,
    }


def _candidate_to_wire(candidate: Candidate, *, admin: bool) -> dict[str, Any]:
    worker = candidate.worker
    shown = admin or worker.scope is WorkerScope.CLIENT
    return {
        "workerId": worker.id if shown else None,
        "name": worker.name if shown else None,
        "scope": worker.scope,
        "status": worker.status,
        "config": config_to_wire(worker.config),
        "takesIt": not candidate.reasons,
        "reasons": candidate.reasons,
    }
