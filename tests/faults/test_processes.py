"""Real processes that are killed, and a real MongoDB that is: faults 1, 4, 6, 7 and 19 of docs/promises.md."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from pymongo import MongoClient

from engine.jobs.states import JobState
from tests.support.backends import MONGO, Database, own_mongod
from tests.support.customer import Customer, pid_of, serving
from tests.support.fake_provider import Rule, fault
from tests.support.invariants import check
from tests.support.mongod import Mongod
from tests.support.service import Replica, one_of_each
from tests.support.waiting import eventually

LEASE = 3.0
RECOVERY_MARGIN = 3.0
"""The pool's own poll, a second, and what a busy machine takes."""

IN_FLIGHT = 64
FATAL_LEASES = 4
OUTAGE_NOTICED_WITHIN = 5.0
HASTY = "?timeoutMS=0&serverSelectionTimeoutMS=1000"
"""For a driver that finds out soon that there is nobody, but waits for one who is there: a read that
timed out by itself would have given its job back before the server is killed."""

on_each_kind = pytest.mark.parametrize("backend", one_of_each(), indirect=True)


@on_each_kind
def test_a_process_killed_with_calls_in_flight(database: Database, tmp_path: Path) -> None:
    """Faults 1 and 4: kill -9 with 64 calls in flight; started again under the same name and port, the service runs
    all of them again when their leases have run out, and the lost attempts are on the ledger, their cost unknown."""
    with serving(database, tmp_path, lease_seconds=LEASE, worker_lease_seconds=2) as (customer, [replica]):
        customer.fake.hold()
        customer.employ(replica, capacity=IN_FLIGHT)
        customer.post(replica, *(f"job {number}" for number in range(IN_FLIGHT)))
        customer.fake.seen.wait_until(lambda seen: seen.in_flight == IN_FLIGHT, timeout=30)
        first, killed_at = replica.pid, datetime.now(UTC)
        replica.kill()
        replica.start()
        customer.fake.release()
        for job in customer.wait():
            lost, completed = job.ledger
            assert (lost.outcome, lost.error_type, lost.charged, lost.calls) == ("lease_lost", "LeaseLost", False, ())
            assert lost.ended_at is not None
            assert lost.ended_at - killed_at < timedelta(seconds=LEASE + RECOVERY_MARGIN)
            assert (completed.outcome, [call.outcome for call in completed.calls]) == ("completed", ["ok"])
            assert (pid_of(lost.owner), pid_of(completed.owner)) == (first, replica.pid)
        assert customer.fake.seen.total == 2 * IN_FLIGHT
        check(customer)


@on_each_kind
def test_acknowledged_jobs_survive_a_kill(database: Database, tmp_path: Path) -> None:
    """Whatever POST /jobs had acknowledged when the process was killed is there when it has started again."""
    with serving(database, tmp_path) as (customer, [replica]), ThreadPoolExecutor(4) as threads:
        enough = [threading.Event() for _ in range(4)]
        posting = [threads.submit(customer.post_until_it_breaks, replica, event) for event in enough]
        assert all(event.wait(30) for event in enough)
        replica.kill()
        customer.accepted = [job_id for each in posting for job_id in each.result(30)]
        replica.start()
        assert len(customer.accepted) >= 80
        listed = customer.call(replica, "GET", "/jobs?limit=10000")
        assert {job["jobId"] for job in listed} >= set(customer.accepted)
        customer.accepted = [job["jobId"] for job in listed]
        customer.employ(replica, capacity=50)
        customer.wait()
        check(customer)


@on_each_kind
def test_a_job_that_kills_its_worker_every_time(database: Database, tmp_path: Path) -> None:
    """Fault 19: a job in whose handling the process dies each time is a dead letter after a few lost leases, and says
    so; it is charged no attempt, and the other jobs go on."""
    with serving(database, tmp_path, lease_seconds=1.5, worker_lease_seconds=1.5) as (customer, [replica]):
        customer.fake.add(Rule(fault("hang"), containing="poison"))
        customer.employ(replica)
        [poison] = customer.post(replica, "poison")
        for times in range(1, FATAL_LEASES + 1):
            others = customer.post(replica, f"harmless {times}", f"harmless {times}")
            assert {job.status for job in customer.wait(others)} == {JobState.PROCESSED}
            customer.fake.seen.wait_until(lambda seen, times=times: seen.count(containing="poison") == times, 30)
            replica.kill()
            replica.start()
        [dead] = customer.wait([poison])
        assert dead.status is JobState.ERROR_PROCESSING
        assert dead.failure is not None
        assert dead.failure.error_type == "LeaseLost"
        assert "lease" in dead.failure.message
        assert [attempt.outcome for attempt in dead.ledger] == ["lease_lost"] * FATAL_LEASES
        assert dead.attempts == 0
        customer.post(replica, "harmless at last")
        customer.wait()
        check(customer)


@pytest.fixture(scope="module")
def mongod() -> Iterator[Mongod]:
    """A server of this module's own, since it is killed."""
    with own_mongod() as server:
        yield server


@contextmanager
def _served_by(mongod: Mongod, folder: Path, options: str = "") -> Iterator[tuple[Customer, Replica]]:
    """A service whose leases outlast the outage: the token holds."""
    database = Database(MONGO, mongod.url + options, f"metasync-processes-{time.monotonic_ns()}")
    try:
        with serving(database, folder, lease_seconds=60) as (customer, [replica]):
            yield customer, replica
    finally:
        database.close()
        if not mongod.running:  # after a failure; the next test shall not fail for it
            mongod.restart()


def test_mongodb_dies_between_claim_and_call(mongod: Mongod, tmp_path: Path) -> None:
    """Fault 6: the database is killed after the claim, before the call; the worker waits and makes the call when it
    is back, also where the job has only one attempt: the outage charges none."""
    with _served_by(mongod, tmp_path, HASTY) as (customer, replica):
        customer.post(replica, *(f"job {number}" for number in range(10)), maxAttempts=1)
        _block_reads_of_models(mongod)
        customer.employ(replica)
        eventually(lambda: {job.status for job in customer.jobs()} == {JobState.PROCESSING}, within=30)
        eventually(lambda: _reads_its_model(mongod), within=30, what="the worker has what it claimed")
        mongod.kill()
        replica.wait_for("settlement_waits")
        mongod.restart()
        assert {job.status for job in customer.wait()} == {JobState.PROCESSED}
        assert customer.fake.seen.total == 10
        check(customer)


def _block_reads_of_models(mongod: Mongod) -> None:
    """What a worker reads between claim and call is not answered any more, until the server starts anew."""
    blocked = {"failCommands": ["find"], "blockConnection": True, "blockTimeMS": 60_000}
    with MongoClient[dict[str, object]](mongod.url) as client:
        [name] = [name for name in client.list_database_names() if name.startswith("metasync-processes-")]
        blocked["namespace"] = f"{name}.models"
        client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=blocked)


def _reads_its_model(mongod: Mongod) -> bool:
    """Whether a job's model is being read: killed before, the server takes the claim's own answer with it."""
    with MongoClient[dict[str, object]](mongod.url) as client:
        running = list(client.admin.aggregate([{"$currentOp": {}}, {"$match": {"command.find": "models"}}]))
    return any("name" in operation["command"].get("filter", {}) for operation in running)


def test_mongodb_dies_while_the_paid_call_is_in_flight(mongod: Mongod, tmp_path: Path) -> None:
    """Fault 7: the answer comes while the database is dead: the result is kept and written when it is back, or goes
    into the evaluation, without a second call. Meanwhile the API says 503 and when to come again, readiness is red,
    and the process is alive."""
    with _served_by(mongod, tmp_path) as (customer, replica):
        customer.fake.hold()
        customer.employ(replica)
        customer.post(replica, *(f"job {number}" for number in range(5)))
        customer.post(replica, *(f"job {number}" for number in range(5)), **customer.evaluated)
        customer.fake.seen.wait_until(lambda seen: seen.in_flight == 10, timeout=30)
        mongod.kill()
        customer.fake.release()
        _assert_outage_is_told(customer, replica)
        replica.wait_for("settlement_waits")
        mongod.restart()
        jobs = customer.wait()
        assert [len(job.ledger) for job in jobs] == [1] * 10
        assert [job.totals.calls for job in jobs] == [1] * 5 + [2] * 5
        assert customer.fake.seen.total == 15
        assert replica.http.get("/health/ready").status_code == 200
        check(customer)


def _assert_outage_is_told(customer: Customer, replica: Replica) -> None:
    def timed(method: str, path: str) -> tuple[httpx.Response, float]:
        began = time.monotonic()
        answer = replica.http.request(method, path, headers=customer.headers, json=body if method == "POST" else None)
        return answer, time.monotonic() - began

    body = customer.body("refused")
    asked = [("GET", "/jobs"), ("POST", "/jobs"), ("GET", "/health/ready"), ("GET", "/health/live")]
    with ThreadPoolExecutor(len(asked)) as threads:
        (listed, _), (posted, _), (ready, _), (live, at_once) = answers = list(
            threads.map(lambda one: timed(*one), asked)
        )
    assert max(seconds for _, seconds in answers) < OUTAGE_NOTICED_WITHIN
    assert [answer.status_code for answer in (listed, posted, ready, live)] == [503, 503, 503, 200]
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in (listed, posted))
    assert at_once < 1
