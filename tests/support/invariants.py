"""What must hold after every fault, whatever it was: asked of the stored jobs and of the provider."""

from collections import Counter
from datetime import date

from engine.jobs.job import Job, totals_of
from engine.jobs.queue import JobQuery
from engine.jobs.states import JobState
from engine.usage import UsageQuery
from tests.support.customer import Customer
from tests.support.queue_model import by_dimensions, usage_of
from tests.support.rig import ENDED

WITHOUT_A_RECORD = {"lease_lost", "canceled"}
"""Outcomes of attempts that nobody lived to record calls of: one may have been made, its cost is unknown."""


def check(customer: Customer) -> None:
    """Every accepted job ended once; nothing is held; calls, attempts, costs and sums agree."""
    jobs = customer.jobs()
    for job in jobs:
        _ended_once(job)
        _well_kept_ledger(job)
    _calls_are_on_the_ledgers(customer, jobs)
    _sums_agree(customer, jobs)


def _ended_once(job: Job) -> None:
    """One terminal state, a result or an error, no lease left."""
    assert job.status in ENDED
    assert job.lease is None
    assert (job.response_data is not None) == (job.status is JobState.PROCESSED)
    assert (job.failure is not None) == (job.status is JobState.ERROR_PROCESSING)


def _well_kept_ledger(job: Job) -> None:
    """One entry per token, the winning one last, charged within the maximum, the costs those of its calls."""
    tokens = [attempt.token for attempt in job.ledger]
    assert tokens == sorted(set(tokens))
    assert tokens[-1] == job.token or job.status is JobState.CANCELED
    completed = [attempt.token for attempt in job.ledger if attempt.outcome == "completed"]
    assert completed == ([job.token] if job.status is JobState.PROCESSED else [])
    charged = sum(attempt.charged for attempt in job.ledger)
    assert charged == job.attempts <= job.max_attempts
    assert job.totals == totals_of(call for attempt in job.ledger for call in attempt.calls)


def _calls_are_on_the_ledgers(customer: Customer, jobs: list[Job]) -> None:
    """Every call the provider saw is an attempt's of its own, and every recorded call was seen."""
    assert set(customer.fake.seen.by_attempt.values()) <= {1}, "the same call twice"
    seen = Counter(tuple(call.split("-")[:2]) for call in customer.fake.seen.by_attempt)
    for job in jobs:
        for attempt in job.ledger:
            calls = seen.pop((job.id, str(attempt.token)), 0)
            silent = not attempt.calls and attempt.outcome in WITHOUT_A_RECORD
            assert calls == len(attempt.calls) or (silent and calls == 1), (job.id, attempt)
    assert not seen, "calls that no ledger knows of"


def _sums_agree(customer: Customer, jobs: list[Job]) -> None:
    """The summary's counts and costs are those of the jobs, and so is the usage, to the last digit."""
    rows = customer.storage.jobs.summary(JobQuery(client_id=customer.client_id))
    counted = Counter({row.status: 0 for row in rows})
    for row in rows:
        counted[row.status] += row.count
    assert +counted == Counter(job.status for job in jobs)
    assert sum(row.input_cost for row in rows) == sum(job.totals.input_cost for job in jobs)
    assert sum(row.output_cost for row in rows) == sum(job.totals.output_cost for job in jobs)
    used = customer.storage.usage.rows(UsageQuery(first=date.min, last=date.max, client_id=customer.client_id))
    assert by_dimensions(used) == usage_of(jobs)
