"""Two real processes on one database: fault 2 of docs/promises.md, workers as desired state, keys that are rotated."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from engine.jobs.job import Job
from engine.jobs.states import JobState
from tests.support.api import ADMIN
from tests.support.backends import SQLITE, Database
from tests.support.customer import Customer, pid_of, serving
from tests.support.invariants import check
from tests.support.service import Replica, one_of_each
from tests.support.waiting import eventually

pytestmark = pytest.mark.parametrize("backend", one_of_each(), indirect=True)

LEASE = 2.0
WORKER_LEASE = 3.0
CAPACITY = 5
KEY_STOPS_WITHIN = 2.0


def _owners(jobs: list[Job]) -> set[int]:
    """The processes that held these jobs."""
    return {pid_of(attempt.owner) for job in jobs for attempt in job.ledger}


def _freeze(replica: Replica, database: Database) -> None:
    """SIGSTOP, but not within a write to the SQLite file: the lock that it would take along is another fault."""
    replica.freeze()
    while database.backend == SQLITE and _is_locked(database):
        replica.thaw()
        replica.freeze()


def _is_locked(database: Database) -> bool:
    with closing(sqlite3.connect(database.url.removeprefix("sqlite:///"), timeout=0, isolation_level=None)) as file:
        try:
            file.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        file.execute("ROLLBACK")
        return False


def test_a_process_frozen_for_twice_its_leases(database: Database, tmp_path: Path) -> None:
    """Fault 2: another replica does the jobs of a frozen one; when that goes on, what it writes is refused by its
    token, and the calls of both are booked. The client sees one result."""
    with serving(database, tmp_path, 2, lease_seconds=LEASE, worker_lease_seconds=2) as (customer, [frozen, other]):
        customer.fake.hold()
        customer.employ(frozen)
        customer.post(frozen, *(f"job {number}" for number in range(8)))
        customer.fake.seen.wait_until(lambda seen: seen.in_flight == 8, timeout=30)
        _freeze(frozen, database)
        frozen_at = time.monotonic()
        customer.fake.seen.wait_until(lambda seen: seen.total == 16, timeout=30)
        customer.fake.release()
        before = {job.id: (job.token, job.response_data) for job in customer.wait()}
        eventually(lambda: time.monotonic() > frozen_at + 2 * LEASE)
        frozen.thaw()
        eventually(lambda: all(job.totals.calls == 2 for job in customer.jobs()), what="the late calls are booked")
        for job in customer.jobs():
            late, winner = job.ledger
            assert (late.outcome, pid_of(late.owner)) == ("lease_lost", frozen.pid)
            assert (winner.outcome, pid_of(winner.owner)) == ("completed", other.pid)
            assert (job.token, job.response_data) == before[job.id]
        late_calls = [job.ledger[0].calls[0] for job in customer.jobs()]
        assert any(call.input_cost for call in late_calls), "the answers that lay waiting were dropped"
        check(customer)
        _goes_on(customer, frozen)


def _goes_on(customer: Customer, replica: Replica) -> None:
    """A job posted to this replica is done, by whoever runs the worker."""
    [job] = customer.wait(customer.post(replica, "and on it goes"))
    assert job.status is JobState.PROCESSED


def test_one_replica_runs_a_worker_and_another_takes_over(database: Database, tmp_path: Path) -> None:
    """Of two replicas exactly one runs a worker; when it is killed, the other one does within the worker's lease; a
    stop posted to a replica that does not run it stops it, and a start there starts it there."""
    settings = {"lease_seconds": LEASE, "worker_lease_seconds": WORKER_LEASE}
    with serving(database, tmp_path, 2, **settings) as (customer, [first, second]):
        customer.fake.hold()
        worker = customer.employ(first, capacity=CAPACITY)
        jobs = customer.post(second, *(f"job {number}" for number in range(3 * CAPACITY)))
        customer.fake.seen.wait_until(lambda seen: seen.in_flight == CAPACITY, timeout=30)
        customer.fake.release()
        assert _owners(customer.wait(jobs)) == {first.pid}
        assert customer.fake.seen.max_in_flight == CAPACITY

        first.kill()
        killed_at = time.monotonic()
        assert _owners(customer.wait(customer.post(second, "after the death"))) == {second.pid}
        assert time.monotonic() - killed_at < WORKER_LEASE + 3

        first.start()
        customer.call(first, "POST", f"/workers/{worker}/stop")
        second.wait_for("worker_stops")
        waiting = customer.post(second, "while it is stopped")
        assert customer.call(first, "GET", f"/jobs/{waiting[0]}/explain")["reason"] == "workers_stopped"
        customer.call(first, "POST", f"/workers/{worker}/start")
        assert _owners(customer.wait(waiting)) == {first.pid}
        check(customer)


def test_a_rotated_key_stops_on_the_other_replica(database: Database, tmp_path: Path) -> None:
    """A key rotated on one replica is refused there at once, and on the other, which has just served it, within two
    seconds; the new one works on both."""
    with serving(database, tmp_path, 2) as (customer, [here, there]):
        old = customer.headers
        assert [replica.http.get("/jobs", headers=old).status_code for replica in (here, there)] == [200, 200]
        rotated = here.http.post(f"/clients/{customer.client_id}/rotate-key", headers=ADMIN)
        rotated_at = time.monotonic()
        new = {**old, "client_api_key": rotated.json()["api_key"]}
        assert here.http.get("/jobs", headers=old).status_code == 401
        eventually(lambda: there.http.get("/jobs", headers=old).status_code == 401, within=KEY_STOPS_WITHIN)
        assert time.monotonic() - rotated_at < KEY_STOPS_WITHIN + 0.5
        assert [replica.http.get("/jobs", headers=new).status_code for replica in (here, there)] == [200, 200]
