"""What an event or an outcome makes of a job: pure, and so the definition that every back-end's writes agree with."""

from dataclasses import replace
from datetime import datetime

from engine.jobs.job import Attempt, Failure, Job, Lease, Totals, totals_of
from engine.jobs.outcome import EVENT_OF, Completed, DeadLettered, Expired, Retried, Settlement
from engine.jobs.states import TRANSITIONS, Event, JobState, transition


def after_event(
    job: Job, event: Event, now: datetime, *, by: str, lease: Lease | None = None, failure: Failure | None = None
) -> Job:
    """`job` after `event`, asked for by `by` from outside; raises TransitionRefused.

    `lease` comes with claim, `failure` with the events that lead to an error state. Leaving PROCESSING ends the
    lease; whoever held the job finds its token no longer current where the event fences.
    """
    target = transition(job.status, event)
    changed = replace(
        job,
        status=target,
        lease=lease if event is Event.CLAIM else None,
        token=job.token + TRANSITIONS[event].fences,
        metadata=job.metadata.touched(now, by),
    )
    if job.status is JobState.PROCESSING and job.lease is not None:
        changed = with_attempt(changed, _ended_from_outside(job, event, now))
    if event in (Event.REDRIVE, Event.REOPEN, Event.REQUEUE):
        changed = replace(changed, due_at=None, attempts=0, waits=0, leases_lost=0, failure=None)
    if event in (Event.DEAD_LETTER, Event.FORCE_DEAD_LETTER):
        changed = replace(changed, failure=failure)
    return changed


def deleted(job: Job, now: datetime, *, by: str) -> Job:
    """`job` deleted: invisible from now on, and taken from whoever holds it."""
    changed = replace(job, lease=None, token=job.token + 1, metadata=job.metadata.deleted(now, by))
    if job.status is JobState.PROCESSING and job.lease is not None:
        return with_attempt(changed, _ended_from_outside(job, Event.CANCEL, now))
    return changed


def _ended_from_outside(job: Job, event: Event, now: datetime) -> Attempt:
    outcome = {Event.COMPLETE: "completed", Event.DEAD_LETTER: "dead_lettered"}.get(event, "canceled")
    owner = job.lease.owner if job.lease is not None else "unknown"
    started = job.metadata.updated_at or job.metadata.created_at
    return Attempt(token=job.token, owner=owner, started_at=started, ended_at=now, outcome=outcome)


def with_attempt(job: Job, attempt: Attempt) -> Job:
    """`job` with `attempt` on its ledger and its calls in the totals.

    An entry of the same token without calls is replaced; one with calls stays, and nothing is added.
    """
    for entry in job.ledger:
        if entry.token == attempt.token and entry.calls:
            return job
    others = tuple(entry for entry in job.ledger if entry.token != attempt.token)
    ledger = tuple(sorted((*others, attempt), key=lambda entry: entry.token))
    return replace(job, ledger=ledger, totals=added(job.totals, totals_of(attempt.calls)))


def added(first: Totals, second: Totals) -> Totals:
    return Totals(
        calls=first.calls + second.calls,
        input_tokens=first.input_tokens + second.input_tokens,
        output_tokens=first.output_tokens + second.output_tokens,
        duration=first.duration + second.duration,
        input_cost=first.input_cost + second.input_cost,
        output_cost=first.output_cost + second.output_cost,
        currencies=first.currencies | second.currencies,
    )


def after_settlement(job: Job, settlement: Settlement, now: datetime) -> Job | None:
    """`job` after `settlement`, or None where the guard refuses it. See JobQueue.settle."""
    if job.status is not JobState.PROCESSING or job.token != settlement.token:
        return None
    if settlement.only_expired and (job.lease is None or job.lease.expires_at > now):
        return None
    outcome = settlement.outcome
    status = transition(job.status, EVENT_OF[type(outcome)])
    changed = replace(job, status=status, lease=None, due_at=None, metadata=job.metadata.touched(now, "worker"))
    if settlement.attempt is not None:
        changed = with_attempt(changed, settlement.attempt)
    if isinstance(outcome, Completed):
        changed = _completed(changed, outcome)
    elif isinstance(outcome, Retried):
        changed = _retried(changed, outcome, now)
    elif isinstance(outcome, DeadLettered):
        changed = replace(changed, failure=outcome.failure, attempts=outcome.failure.attempts)
    elif isinstance(outcome, Expired):
        changed = replace(changed, token=job.token + 1, leases_lost=job.leases_lost + 1)
    return changed


def _completed(job: Job, outcome: Completed) -> Job:
    return replace(
        job,
        response_data=outcome.result,
        eval_result=outcome.eval_result,
        suggested_prompt_id=outcome.suggested_prompt_id,
        failure=None,
    )


def _retried(job: Job, outcome: Retried, now: datetime) -> Job:
    counted = replace(job, attempts=job.attempts + 1) if outcome.charged else replace(job, waits=job.waits + 1)
    due = outcome.due_at if outcome.due_at > now else None
    return replace(counted, failure=outcome.failure, due_at=due)
