"""Budgets of clients and cost caps of workers, with two replicas on one database: jobs wait, nothing is an error."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from engine.jobs.job import Job
from engine.jobs.queue import JobQuery
from engine.jobs.states import JobState
from engine.purses import purse_of_client
from engine.records.values import Budget, Client, Money, WorkerConfig
from engine.usage import UsageQuery
from tests.support.api import ADMIN
from tests.support.backends import Database
from tests.support.branches import CLOCK, PRICE, Town, budget, town
from tests.support.customer import serving
from tests.support.invariants import check
from tests.support.service import Replica, one_of_each
from tests.support.waiting import eventually

pytestmark = pytest.mark.parametrize("backend", one_of_each(), indirect=True)

CAPACITY = 8
COST = Decimal("0.025")
"""Of a call of the customer's model."""


def done(jobs: list[Job]) -> int:
    return sum(job.status is JobState.PROCESSED for job in jobs)


def waits_visibly(town: Town, ids: list[str], why: str, least: int) -> list[Job] | None:
    """The jobs once so many are done, none is in flight, and one of those that wait says why."""
    jobs = town.jobs(ids)
    waiting = [job for job in jobs if job.status is JobState.PENDING and job.failure is not None]
    quiet = all(job.status in (JobState.PENDING, JobState.PROCESSED) for job in jobs)
    return (
        jobs
        if quiet and done(jobs) >= least and any(why in (job.failure.message if job.failure else "") for job in waiting)
        else None
    )


def agree(town: Town, client: Client, jobs: list[Job]) -> Decimal:
    """What the client has spent, the same by its jobs, its summary, its usage and the provider; to the last digit."""
    spent = sum((job.totals.input_cost + job.totals.output_cost for job in jobs), Decimal(0))
    rows = town.storage.jobs.summary(JobQuery(client_id=client.id))
    used = town.storage.usage.rows(UsageQuery(first=date.min, last=date.max, client_id=client.id))
    assert sum(row.input_cost + row.output_cost for row in rows) == spent
    assert sum(row.input_cost + row.output_cost for row in used) == spent
    assert sum(row.calls for row in used) == sum(job.totals.calls for job in jobs) == spent / PRICE
    return spent


def told(logs: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """What the log has said of budgets."""
    return Counter(entry["event"] for entry in list(logs) if entry["event"].startswith("budget_"))


def raised(town: Town, client: Client, limit: Budget | None) -> None:
    stored = town.storage.clients.get(client.id)
    assert stored is not None
    assert town.storage.clients.compare_and_set(replace(stored, budget=limit))


def test_a_budget_is_reached_and_raised(database: Database) -> None:
    """Two replicas spend a budget up to its limit and over it by less than what they had in flight; the rest waits,
    uncharged, saying which budget it waits for, while other clients' jobs are done. A raise resumes it, and so does
    removing the budget. Each is told in the log once."""
    with capture_logs() as logs, town(database) as two:
        client, other = two.client(budget(40)), two.client(None)
        for place in range(2):
            two.worker(place, capacity=CAPACITY)
        ids = two.post(client, 100)
        theirs = two.post(other, 20)
        jobs = eventually(lambda: waits_visibly(two, ids, "is used up", 40), within=30, what="the budget is reached")
        spent = agree(two, client, jobs)
        assert spent <= PRICE * (40 + 2 * CAPACITY)
        assert {job.attempts for job in jobs} == {0}
        eventually(lambda: done(two.jobs(theirs)) == 20, what="the other client's jobs")
        failures = [job.failure for job in jobs if job.failure is not None]
        assert {failure.error_type for failure in failures} == {"BudgetExhausted"}
        text = f"the budget of client {client.id}, {PRICE * 40:.2f} USD a month, is used up"
        assert all(text in failure.message and "its period ends at 20" in failure.message for failure in failures)
        eventually(lambda: told(logs) == {"budget_reached": 1}, what="the log tells it")

        raised(two, client, budget(60))
        eventually(lambda: done(two.jobs(ids)) >= 60, within=10, what="a raise resumes")
        jobs = eventually(lambda: waits_visibly(two, ids, f"{PRICE * 60:.2f} USD", 60), what="the new limit is reached")
        assert agree(two, client, jobs) <= PRICE * (60 + 2 * CAPACITY)
        eventually(lambda: told(logs)["budget_reached"] == 2, what="the log tells it again")
        raised(two, client, None)
        eventually(lambda: done(two.jobs(ids)) == 100, within=15, what="without a budget all is done")
        assert agree(two, client, two.jobs(ids)) == PRICE * 100
    assert told(logs) == {"budget_reached": 2, "budget_resumed": 2}
    purse = purse_of_client(client, CLOCK.now())
    assert purse is not None
    kept = database.open().shared.get_many([purse.key])[purse.key]
    assert (kept["holders"], kept["reached"]) == ({}, False)


def test_what_is_in_flight_when_the_limit_is_reached(database: Database) -> None:
    """With sixteen calls in flight whose answers all come at once the overspend is theirs at most."""
    with town(database) as two:
        client = two.client(budget(20))
        two.fake.hold()
        for place in range(2):
            two.worker(place, capacity=CAPACITY)
        ids = two.post(client, 60)
        eventually(lambda: two.fake.seen.in_flight > 0, what="calls in flight")
        two.fake.release()
        jobs = eventually(lambda: waits_visibly(two, ids, "is used up", 20), within=30, what="the budget is reached")
        assert agree(two, client, jobs) <= PRICE * (20 + 2 * CAPACITY)


def test_a_worker_spends_up_to_its_cap(database: Database) -> None:
    """A worker with a maxCost claims nothing once it has spent it; jobs wait for another worker, which does them."""
    with town(database, 1) as one:
        client = one.client(None)
        cap = WorkerConfig(poll_interval=1, max_items_per_batch=CAPACITY, max_cost=Money(PRICE * 10, "USD"))
        worker = one.worker(config=cap)
        ids = one.post(client, 40)
        jobs = eventually(lambda: waits_visibly(one, ids, "maxCost", 10), within=30, what="the cap is reached")
        assert agree(one, client, jobs) <= PRICE * (10 + CAPACITY)
        eventually(lambda: one.branches[0].wallets.shut_worker(worker.id), what="the worker claims nothing")
        one.worker(capacity=CAPACITY)
        eventually(lambda: done(one.jobs(ids)) == 40, what="another worker does the rest")


def test_a_budget_in_another_currency_is_not_spent(database: Database) -> None:
    """Calls priced in dollars leave a budget in euros alone."""
    with town(database, 1) as one:
        client = one.client(budget(1, currency="EUR"))
        one.worker(capacity=CAPACITY)
        ids = one.post(client, 20)
        eventually(lambda: done(one.jobs(ids)) == 20, what="all is done")


def test_a_raise_through_one_process_resumes_all(database: Database, tmp_path: Path) -> None:
    """With two real processes: the limit is reached, `explain` and `budgetState` say so, and a raise asked of the one
    resumes the other's worker within three seconds. After they have been stopped nothing is reserved."""
    with serving(database, tmp_path, 2) as (customer, [here, there]):
        path = f"/clients/{customer.client_id}"

        def limited(amount: float) -> Any:
            body = {"budget": {"amount": amount, "currency": "USD", "period": "total"}}
            return here.http.patch(path, json=body, headers=ADMIN).json()

        limited(float(COST * 10))
        customer.employ(there, capacity=CAPACITY)
        ids = customer.post(here, *(f"job {number}" for number in range(40)))
        eventually(lambda: state(here, path)["exhausted"], within=30, what="the budget is reached")
        eventually(lambda: JobState.PROCESSING not in customer.statuses(ids), what="all calls have ended")
        waiting = [job for job in customer.jobs(ids) if job.status is JobState.PENDING]
        assert 40 - len(waiting) < 10 + CAPACITY
        told = customer.call(here, "GET", f"/jobs/{waiting[-1].id}/explain")
        assert told["reason"] == "budget_exhausted"

        limited(100.0)
        began = time.monotonic()
        eventually(lambda: customer.fake.seen.total > 40 - len(waiting), what="a raise resumes")
        assert time.monotonic() - began < 3
        customer.wait(ids)
        check(customer)
        assert state(here, path)["spent"] == float(COST * 40)
        for replica in (here, there):
            replica.terminate()
            replica.exit_code()
        client = customer.storage.clients.get(customer.client_id)
        assert client is not None
        purse = purse_of_client(client, CLOCK.now())
        assert purse is not None
        [document] = customer.storage.shared.get_many([purse.key]).values()
        assert document["holders"] == {}


def state(replica: Replica, path: str) -> Any:
    return replica.http.get(path, headers=ADMIN).json()["budgetState"]
