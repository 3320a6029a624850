"""Settlements as guarded updates of single fields; they agree with engine.jobs.changes.after_settlement."""

from datetime import datetime

from engine.jobs.changes import after_settlement
from engine.jobs.job import Attempt, Job, Totals, totals_of
from engine.jobs.outcome import EVENT_OF, Completed, DeadLettered, Expired, Outcome, Retried, Settlement
from engine.jobs.states import TRANSITIONS, JobState
from engine.storage.codec import Line, failure_to_document, json_text
from engine.storage.mongo.connection import Document
from engine.storage.mongo.documents import LIVE, stored_attempt, stored_totals


def guard(settlement: Settlement, now: datetime) -> Document:
    """When the update may be made as it stands. An attempt that is on the ledger already needs more thought."""
    condition: Document = {
        "_id": settlement.job_id,
        "status": str(JobState.PROCESSING),
        "token": settlement.token,
        **LIVE,
    }
    if settlement.only_expired:
        condition["wakeAt"] = {"$lte": now}
    if settlement.attempt is not None:
        condition["ledger.token"] = {"$ne": settlement.attempt.token}
    return condition


def update(settlement: Settlement, now: datetime) -> Document:
    outcome = settlement.outcome
    due_at = outcome.due_at if isinstance(outcome, Retried) and outcome.due_at > now else None
    status = TRANSITIONS[EVENT_OF[type(outcome)]].target
    values = {
        "status": str(status),
        "line": str(_line(status, due_at)),
        "lease": None,
        "dueAt": due_at,
        "_metadata.updatedAt": now,
        "_metadata.updatedBy": "worker",
        **_results(outcome),
    }
    counts = {"revision": 1, **_counted(outcome)}
    made: Document = {"$set": values, "$inc": counts}
    if due_at is None:
        made["$unset"] = {"wakeAt": ""}
    else:
        values["wakeAt"] = due_at
    if settlement.attempt is not None:
        _add_attempt(made, settlement.attempt)
    return made


def _line(status: JobState, due_at: datetime | None) -> Line:
    if status is not JobState.PENDING:
        return Line.NONE
    return Line.READY if due_at is None else Line.LATER


def _results(outcome: Outcome) -> Document:
    if isinstance(outcome, Completed):
        return {
            "responseData": json_text(outcome.result),
            "evalResult": json_text(outcome.eval_result),
            "suggestedPromptId": outcome.suggested_prompt_id,
            "errorData": None,
        }
    if isinstance(outcome, Retried):
        return {"errorData": failure_to_document(outcome.failure)}
    if isinstance(outcome, DeadLettered):
        return {"errorData": failure_to_document(outcome.failure), "attempts": outcome.failure.attempts}
    return {}


def _counted(outcome: Outcome) -> dict[str, int]:
    if isinstance(outcome, Retried):
        return {"attempts": 1} if outcome.charged else {"waits": 1}
    return {"token": 1, "leasesLost": 1} if isinstance(outcome, Expired) else {}


def _add_attempt(made: Document, attempt: Attempt) -> None:
    made["$push"] = {"ledger": stored_attempt(attempt)}
    if not attempt.calls:
        return
    totals = totals_of(attempt.calls)
    made["$inc"] |= {f"totals.{name}": value for name, value in _increments(totals).items() if value}
    if totals.currencies:
        made["$addToSet"] = {"totals.currencies": {"$each": sorted(totals.currencies)}}


def _increments(totals: Totals) -> Document:
    document = stored_totals(totals)
    del document["currencies"]
    return document


def had_been_written(job: Job, settlement: Settlement) -> bool:
    """Whether the ledger shows the settlement's attempt, under its token and with its outcome."""
    attempt = settlement.attempt
    if attempt is None:
        return False
    return any(entry.token == attempt.token and entry.outcome == attempt.outcome for entry in job.ledger)


def settled_or_known(job: Job, settlement: Settlement, now: datetime) -> tuple[Job | None, bool]:
    """What the settlement makes of the job, to be written; or None and whether it had been written before."""
    changed = after_settlement(job, settlement, now)
    return (changed, False) if changed is not None else (None, had_been_written(job, settlement))
