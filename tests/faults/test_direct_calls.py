"""Direct calls to real processes that are killed and drained, and whose callers do not wait for the end."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.jobs.job import Job
from engine.jobs.states import JobState
from tests.support.backends import Database
from tests.support.customer import Customer, pid_of, serving
from tests.support.fake_provider import Rule, fault
from tests.support.invariants import check
from tests.support.service import Replica, one_of_each
from tests.support.waiting import eventually

pytestmark = pytest.mark.parametrize("backend", one_of_each(), indirect=True)

LEASE = 2.0
GRACE = 1.0


def call(
    customer: Customer, replica: Replica, text: str, patience: float = 30, *, keyed: bool = True, **fields: Any
) -> httpx.Response:
    """A direct call with a key of its own; TransportError where its connection breaks or `patience` seconds pass."""
    body = {name: value for name, value in customer.body(text, **fields).items() if name != "operation"}
    headers = {**customer.headers, **({"Idempotency-Key": text} if keyed else {})}
    url = f"{replica.http.base_url}/complete"
    return httpx.post(url, json=body, headers=headers, timeout=patience, trust_env=False)


def jobs_of(customer: Customer, replica: Replica) -> dict[str, Job]:
    """All jobs by their texts, and accepted as the invariants want them."""
    customer.accepted = [job["jobId"] for job in customer.call(replica, "GET", "/jobs")]
    return {job.request_data["text"]: job for job in customer.jobs()}


def outcomes(job: Job) -> list[tuple[str, bool]]:
    """What the job's ledger has: outcome, and whether a worker held it."""
    return [(attempt.outcome, "@" in attempt.owner) for attempt in job.ledger]


def test_a_process_killed_during_a_direct_call(database: Database, tmp_path: Path) -> None:
    """kill -9 during a direct call: when its lease has run out a worker does the job, charged nothing for the lost
    attempt; the same request at the process started again has its result."""
    with (
        serving(database, tmp_path, lease_seconds=LEASE, worker_lease_seconds=LEASE) as (customer, [replica]),
        ThreadPoolExecutor(1) as threads,
    ):
        customer.fake.hold()
        calling: Future[httpx.Response] = threads.submit(call, customer, replica, "lost")
        customer.fake.seen.wait_until(lambda seen: seen.in_flight == 1, timeout=30)
        killed = replica.pid
        replica.kill()
        assert isinstance(calling.exception(30), httpx.TransportError)
        replica.start()
        customer.fake.release()
        customer.employ(replica)
        jobs_of(customer, replica)
        [job] = customer.wait()
        assert pid_of(job.ledger[0].owner) == killed
        assert outcomes(job) == [("lease_lost", False), ("completed", True)]
        assert job.attempts == 0
        answer = call(customer, replica, "lost")
        assert (answer.status_code, answer.json()["jobId"]) == (200, job.id)
        assert answer.json()["responseData"] == job.response_data
        assert answer.headers["Idempotency-Replayed"] == "true"
        check(customer)


def test_a_process_drained_during_direct_calls(database: Database, tmp_path: Path) -> None:
    """SIGTERM during direct calls: one that ends soon is answered as ever, the caller of a long one is told where its
    job will be before the connection goes; the job goes back uncharged, and a worker of the next process does it."""
    with (
        serving(database, tmp_path, drain_seconds=GRACE) as (customer, [replica]),
        ThreadPoolExecutor(2) as threads,
    ):
        customer.fake.add(Rule(fault("hang"), containing="long"))
        customer.fake.hold()
        quick, long = (threads.submit(call, customer, replica, text) for text in ("quick", "long"))
        customer.fake.seen.wait_until(lambda seen: seen.in_flight == 2, timeout=30)
        replica.terminate()
        replica.wait_for("drain_begins")
        customer.fake.release()
        assert quick.result(30).json()["status"] == "PROCESSED"
        told = long.result(30)
        assert (told.status_code, told.json()["waitsFor"]["reason"]) == (202, "held")
        assert replica.exit_code() == 0
        customer.fake.script.clear()
        customer.accepted = [quick.result().json()["jobId"], told.json()["jobId"]]
        assert [job.status for job in customer.jobs()] == [JobState.PROCESSED, JobState.PENDING]
        replica.start()
        customer.employ(replica)
        _, job = customer.wait()
        assert outcomes(job) == [("released", False), ("completed", True)]
        assert job.attempts == 0
        check(customer)


def test_what_nobody_waits_for_goes_on(database: Database, tmp_path: Path) -> None:
    """A caller hangs up: the job is finished and paid, and leaves room for the next call. Another one's job is put back
    for longer than it waits: it is told so at once, and a worker finishes the job."""
    with serving(database, tmp_path, max_direct_calls=1) as (customer, [replica]):
        customer.fake.hold()
        with pytest.raises(httpx.ReadTimeout):
            call(customer, replica, "left", patience=1, keyed=False)
        customer.fake.release()
        eventually(lambda: jobs_of(customer, replica)["left"].status is JobState.PROCESSED)
        assert outcomes(customer.jobs()[0]) == [("completed", False)]
        customer.fake.add(Rule(fault("rate_limit", seconds=4), containing="later", times=1))
        told = eventually(lambda: _taken(call(customer, replica, "later", timeout=2)), what="there is room")
        assert (told.status_code, told.json()["waitsFor"]["reason"]) == (202, "backing_off")
        customer.employ(replica)
        jobs_of(customer, replica)
        _, job = customer.wait()
        assert outcomes(job) == [("retried", False), ("completed", True)]
        assert job.attempts == 0
        check(customer)


def _taken(answer: httpx.Response) -> httpx.Response | None:
    return None if answer.status_code == 503 else answer
