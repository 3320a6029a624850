"""The sums over calls on every back-end. That they follow every operation, test_queue_state_machine.py shows."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from engine.jobs.changes import deleted
from engine.jobs.job import Job
from engine.jobs.outcome import Completed
from engine.jobs.queue import ClaimFilter, ClaimRequest
from engine.records.store import Storage
from engine.usage import Dimension, UsageQuery, UsageRow
from tests.support.backends import Database
from tests.support.factories import (
    CLIENT,
    MINUTE,
    NOW,
    OTHER_CLIENT,
    make_attempt,
    make_call,
    make_job,
    make_jobs,
    settlement,
)
from tests.support.queue_model import by_dimensions, usage_of

TODAY = NOW.date()
EVER = UsageQuery(first=date.min, last=date.max)


def claimed(storage: Storage, *jobs: Job, client_id: str = CLIENT) -> list[Job]:
    """The jobs, stored and held."""
    storage.jobs.insert(jobs)
    request = ClaimRequest(filter=ClaimFilter(client_id=client_id), owner="o", expires_at=NOW + MINUTE, limit=len(jobs))
    return sorted(storage.jobs.claim(request, NOW), key=lambda job: job.id)


def settled(storage: Storage, held: Job, *calls: Any) -> None:
    attempt = make_attempt(held.token, calls=calls)
    assert storage.jobs.settle([settlement(held, Completed(result={}), attempt=attempt)], NOW) == [True]


def test_a_row_tells_all_of_its_calls(storage: Storage) -> None:
    """Calls of a day, model, operation and currency share a row; errors, lost answers and tokens are summed up."""
    [job] = claimed(storage, make_job())
    calls = (
        make_call(cached_input_tokens=3, reasoning_tokens=4),
        make_call(outcome="error", input_cost=None, output_cost=None),
        make_call(outcome="unknown", input_tokens=None, output_tokens=None),
        make_call(currency=None, input_cost=None, output_cost=None),
        make_call(started_at=datetime(2026, 1, 1, 23, 59, 59, 999000, tzinfo=UTC), step="eval", model="judge"),
    )
    settled(storage, job, *calls)

    earlier, unpriced, main = storage.usage.rows(EVER)
    assert main == UsageRow(
        day=TODAY,
        client_id=CLIENT,
        model="gpt-test",
        operation="summarize",
        currency="USD",
        calls=3,
        errors=1,
        unknown=1,
        input_tokens=20,
        output_tokens=40,
        cached_input_tokens=3,
        reasoning_tokens=4,
        input_cost=Decimal("0.002"),
        output_cost=Decimal("0.004"),
    )
    assert (unpriced.currency, unpriced.calls) == (None, 1)
    assert (earlier.day, earlier.model, earlier.calls) == (date(2026, 1, 1), "judge", 1)


def test_what_a_query_means(storage: Storage) -> None:
    """Days are both included, conditions hold together, and sums that differ in nothing asked for are added up."""
    for client_id, model, operation, days in (
        (CLIENT, "m", "a", 0),
        (CLIENT, "n", "b", 1),
        (OTHER_CLIENT, "m", "a", 2),
    ):
        [job] = claimed(storage, make_job(client_id=client_id, operation=operation), client_id=client_id)
        settled(storage, job, make_call(model=model, started_at=NOW + timedelta(days=days)))

    def counted(**fields: Any) -> list[int]:
        query = replace(EVER, group_by=frozenset({Dimension.DAY}), **fields)
        return [row.calls for row in storage.usage.rows(query)]

    assert counted() == [1, 1, 1]
    assert counted(first=TODAY, last=TODAY + timedelta(days=1)) == [1, 1]
    assert counted(client_id=CLIENT, model="m", operation="a") == [1]
    assert counted(client_id=CLIENT, model="m", operation="b") == []
    by_model = storage.usage.rows(replace(EVER, group_by=frozenset({Dimension.MODEL})))
    assert [(row.model, row.calls, row.day, row.client_id) for row in by_model] == [
        ("m", 2, None, None),
        ("n", 1, None, None),
    ]
    [whole] = storage.usage.rows(replace(EVER, group_by=frozenset()))
    assert (whole.calls, whole.input_cost) == (3, Decimal("0.003"))


def test_a_call_counts_once(storage: Storage) -> None:
    """Settling again, booking what was settled, and booking twice add nothing."""
    first, second = claimed(storage, *make_jobs(2))
    for _ in range(2):
        settled(storage, first, make_call())
    assert storage.jobs.book(first.id, make_attempt(first.token)) is False
    assert storage.jobs.book(second.id, make_attempt(second.token)) is True
    assert storage.jobs.book(second.id, make_attempt(second.token)) is False
    [row] = storage.usage.rows(EVER)
    assert row.calls == 2


def test_what_was_spent_stays_spent(storage: Storage) -> None:
    """A deleted job's calls stay, late ones are added, and a job's new operation takes its calls along."""
    gone, moved = claimed(storage, *make_jobs(2))
    settled(storage, gone, make_call())
    settled(storage, moved, make_call())
    found = storage.jobs.get_many([gone.id, moved.id])
    edits = [deleted(found[gone.id], NOW, by=CLIENT), replace(found[moved.id], operation="other")]
    assert storage.jobs.compare_and_set(edits, NOW) == [True, True]
    assert storage.jobs.book(gone.id, make_attempt(gone.token + 5))
    rows = storage.usage.rows(EVER)
    assert [(row.operation, row.calls) for row in rows] == [("other", 1), ("summarize", 2)]


def test_usage_is_the_sum_of_the_jobs_to_the_last_digit(storage: Storage) -> None:
    """Also where the sum fits no machine integer, and for jobs that came with a ledger."""
    amounts = ["9000000.000000000001", "0.000000000001", "0.001", "0", "12.5"]
    calls = [make_call(input_cost=Decimal(text), output_cost=Decimal(text)) for text in amounts]
    held = claimed(storage, *make_jobs(30))
    for place, job in enumerate(held):
        settled(storage, job, calls[place % 5], calls[(place + 1) % 5])
    copy = replace(storage.jobs.get_many([held[0].id])[held[0].id], id="f" * 24)
    storage.jobs.insert([copy])
    jobs = storage.jobs.get_many([*(job.id for job in held), copy.id]).values()
    assert by_dimensions(storage.usage.rows(EVER)) == usage_of(jobs)
    [row] = storage.usage.rows(EVER)
    assert row.input_cost == sum(job.totals.input_cost for job in jobs)


def test_another_replica_sees_it_at_once(database: Database) -> None:
    """What one process settled is in the sums of another one, also in those that it had counted before."""
    here, there = database.open(), database.open()
    for number in (1, 2, 3):
        [job] = claimed(here, make_job())
        settled(here, job, make_call())
        assert [row.calls for row in there.usage.rows(EVER)] == [number]
        assert [row.calls for row in there.usage.rows(EVER)] == [number]


@pytest.mark.parametrize("operation", ["", "x' OR 1=1 --", "$ne", "a\x00b", "ü"])
def test_any_text_may_be_an_operation(storage: Storage, operation: str) -> None:
    """It names its own sums and no others."""
    [job] = claimed(storage, make_job(operation=operation))
    settled(storage, job, make_call(model=operation))
    [row] = storage.usage.rows(replace(EVER, operation=operation, model=operation))
    assert (row.operation, row.model) == (operation, operation)
    assert storage.usage.rows(replace(EVER, operation="other")) == []
