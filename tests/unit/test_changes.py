"""What events and outcomes make of a job: the definition that every back-end is held to."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import TransitionRefused
from engine.jobs.changes import after_event, after_settlement, deleted, with_attempt
from engine.jobs.job import Job, Lease, totals_of
from engine.jobs.matching import claim_filter, mismatches
from engine.jobs.outcome import Completed, DeadLettered, Expired, Outcome, Released, Retried
from engine.jobs.states import TRANSITIONS, Event, JobState
from engine.records.values import WorkerConfig, WorkerScope
from tests.support.factories import (
    CLIENT,
    MINUTE,
    NOW,
    OTHER_CLIENT,
    make_attempt,
    make_call,
    make_failure,
    make_job,
    make_worker,
    settlement,
)

LATER = NOW + MINUTE
LEASE = Lease("holder", NOW + MINUTE)


def held(**fields: object) -> Job:
    return make_job(**{"status": JobState.PROCESSING, "token": 3, "lease": LEASE, **fields})


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", JobState)
def test_an_event_changes_what_the_table_says(state: JobState, event: Event) -> None:
    """Status and token go by the table; nobody but who claims has a lease; the audit fields tell who it was."""
    job = make_job(status=state, token=3, lease=LEASE if state is JobState.PROCESSING else None)
    rule = TRANSITIONS[event]
    if state not in rule.sources:
        with pytest.raises(TransitionRefused):
            after_event(job, event, LATER, by="admin")
        return
    changed = after_event(job, event, LATER, by="admin", lease=LEASE, failure=make_failure())
    assert (changed.status, changed.token) == (rule.target, 3 + rule.fences)
    assert changed.lease == (LEASE if event is Event.CLAIM else None)
    assert (changed.metadata.updated_at, changed.metadata.updated_by) == (LATER, "admin")
    assert (changed.failure is not None) == (event in (Event.DEAD_LETTER, Event.FORCE_DEAD_LETTER))
    assert [entry.token for entry in changed.ledger] == ([3] if state is JobState.PROCESSING else [])


@pytest.mark.parametrize("event", [Event.REDRIVE, Event.REOPEN, Event.REQUEUE])
def test_a_job_that_starts_anew_has_its_whole_budget(event: Event) -> None:
    """What brings a job back to PENDING from outside clears its counters, its failure and its not-before time."""
    [state] = TRANSITIONS[event].sources
    worn = make_job(status=state, attempts=5, waits=7, leases_lost=2, failure=make_failure(), due_at=LATER, token=9)
    fresh = after_event(worn, event, LATER, by=CLIENT)
    assert (fresh.attempts, fresh.waits, fresh.leases_lost, fresh.failure, fresh.due_at) == (0, 0, 0, None, None)
    assert fresh.token >= worn.token


def test_deleting_takes_the_job_away() -> None:
    """A deleted job is invisible, and whoever held it finds its token outdated and the attempt on the ledger."""
    gone = deleted(held(), LATER, by="admin")
    assert (gone.metadata.is_deleted, gone.lease, gone.token) == (True, None, 4)
    assert [(entry.token, entry.outcome, entry.owner) for entry in gone.ledger] == [(3, "canceled", "holder")]
    assert deleted(make_job(), LATER, by="admin").ledger == ()


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Completed(result={"a": 1}), {"status": JobState.PROCESSED, "response_data": {"a": 1}, "failure": None}),
        (Retried(make_failure(), LATER, charged=True), {"status": JobState.PENDING, "attempts": 1, "due_at": LATER}),
        (Retried(make_failure(), NOW, charged=False), {"status": JobState.PENDING, "waits": 1, "due_at": None}),
        (DeadLettered(make_failure(attempts=4)), {"status": JobState.ERROR_PROCESSING, "attempts": 4}),
        (Released("drain"), {"status": JobState.PENDING, "attempts": 0, "waits": 0, "token": 3}),
        (Expired(), {"status": JobState.PENDING, "leases_lost": 1, "token": 4}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_outcome_changes_what_it_says(outcome: Outcome, expected: dict[str, object]) -> None:
    """Each outcome has its status and its counter; the lease is gone, and the attempt is on the ledger once."""
    job = held()
    after = after_settlement(job, settlement(job, outcome), NOW)
    assert after is not None
    assert {name: getattr(after, name) for name in expected} == expected
    assert after.lease is None
    assert (len(after.ledger), after.totals) == (1, totals_of([make_call()]))


def test_a_settlement_is_for_its_holder() -> None:
    """Another token, another state, or a lease that has not run out where it must have: nothing is written."""
    job = held()
    released = settlement(job, Released("x"))
    assert after_settlement(job, replace(released, token=2), NOW) is None
    assert after_settlement(replace(job, status=JobState.CANCELED), released, NOW) is None
    recovery = settlement(job, Expired(), only_expired=True)
    assert after_settlement(job, recovery, LEASE.expires_at - timedelta(milliseconds=1)) is None
    assert after_settlement(replace(job, lease=None), recovery, NOW) is None
    assert after_settlement(job, recovery, LEASE.expires_at) is not None


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=12))
def test_no_call_is_booked_twice(booked: list[tuple[int, bool]]) -> None:
    """However often attempts are booked, in whatever order: one entry a token, rising, and totals that are the sum of
    the calls on the ledger."""
    job = held()
    for token, called in booked:
        job = with_attempt(job, make_attempt(token, calls=(make_call(),) if called else ()))
    tokens = [entry.token for entry in job.ledger]
    assert tokens == sorted({token for token, _ in booked})
    assert job.totals == totals_of(call for entry in job.ledger for call in entry.calls)
    assert {entry.token for entry in job.ledger if entry.calls} == {token for token, called in booked if called}


def test_a_worker_takes_what_its_filters_say() -> None:
    """A filter that a job does not pass is named; a worker without filters takes its client's jobs, or everybody's."""
    job = make_job(client_reference={"team": "red"})
    choosy = WorkerConfig(
        poll_interval=1,
        max_items_per_batch=1,
        operation_filter="translate",
        model_filter="other",
        client_reference_filters={"team": "blue"},
    )
    wanted = claim_filter(make_worker(client_id=OTHER_CLIENT, config=choosy))
    assert mismatches(wanted, job) == [
        "serves another client",
        "takes only operation translate",
        "takes only model other",
        "takes only clientReference team=blue",
    ]
    assert mismatches(claim_filter(make_worker()), job) == []
    assert mismatches(claim_filter(make_worker(client_id=OTHER_CLIENT, scope=WorkerScope.ALL)), job) == []
