"""SIGTERM, a second one, and a rolling restart of real processes: fault 21 of docs/promises.md."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from engine.jobs.states import JobState
from engine.records.store import Storage
from tests.support.backends import Database
from tests.support.customer import Customer, pid_of, serving
from tests.support.fake_provider import Rule, fault
from tests.support.invariants import check
from tests.support.rig import ENDED
from tests.support.service import Replica, one_of_each
from tests.support.waiting import eventually

pytestmark = pytest.mark.parametrize("backend", one_of_each(), indirect=True)

GRACE = 1.5
LONG_GRACE = 300
LOAD_PAUSE = 0.02
CAPACITY = 6


def test_sigterm_finishes_what_it_can_and_gives_back_the_rest(database: Database, tmp_path: Path) -> None:
    """After SIGTERM nothing more is claimed; calls that end within the grace are results, the others go back
    uncharged; the process exits with 0 and leaves nothing leased."""
    with serving(database, tmp_path, drain_seconds=GRACE) as (customer, [replica]):
        customer.fake.add(Rule(fault("hang"), containing="long"))
        quick, long = _occupied(customer, replica)
        later = customer.post(replica, "later", "later")
        replica.terminate()
        replica.wait_for("drain_begins")
        terminated_at = time.monotonic()
        customer.fake.release()
        assert replica.exit_code() == 0
        assert time.monotonic() - terminated_at < GRACE + 4
        _assert_nothing_is_leased(customer.storage, customer)
        assert customer.statuses(quick) == {JobState.PROCESSED}
        assert customer.statuses([*long, *later]) == {JobState.PENDING}
        assert _ledgers(customer, long) == [[("released", False, 1)]] * len(long)
        assert _ledgers(customer, later) == [[], []]
        customer.fake.script.clear()
        replica.start()
        assert {job.status for job in customer.wait()} == {JobState.PROCESSED}
        assert {job.attempts for job in customer.jobs()} == {0}
        check(customer)


def _occupied(customer: Customer, replica: Replica) -> tuple[list[str], list[str]]:
    """A worker with all its places taken by held calls, for jobs that are quick and jobs that are long."""
    customer.fake.hold()
    customer.employ(replica, capacity=CAPACITY)
    quick = customer.post(replica, "quick", "quick", "quick")
    long = customer.post(replica, "long", "long", "long")
    customer.fake.seen.wait_until(lambda seen: seen.in_flight == CAPACITY, timeout=30)
    return quick, long


def _ledgers(customer: Customer, ids: list[str]) -> list[list[tuple[str, bool, int]]]:
    """What each of the jobs has on its ledger: outcome, charged, number of calls."""
    return [
        [(attempt.outcome, attempt.charged, len(attempt.calls)) for attempt in job.ledger] for job in customer.jobs(ids)
    ]


def _assert_nothing_is_leased(storage: Storage, customer: Customer) -> None:
    assert {job.lease for job in customer.jobs()} == {None}
    assert [worker.lease for worker in storage.workers.running()] == [None]


def test_a_second_sigterm_ends_at_once(database: Database, tmp_path: Path) -> None:
    """A second SIGTERM does not wait for the grace to pass: all calls go back uncharged, and the exit code is 0."""
    with serving(database, tmp_path, drain_seconds=LONG_GRACE) as (customer, [replica]):
        quick, long = _occupied(customer, replica)
        replica.terminate()
        replica.wait_for("Waiting for application shutdown.")
        replica.terminate()
        assert replica.exit_code() == 0
        _assert_nothing_is_leased(customer.storage, customer)
        assert _ledgers(customer, [*quick, *long]) == [[("released", False, 1)]] * CAPACITY
        customer.fake.release()
        replica.start()
        customer.wait()
        check(customer)


class Load:
    """Jobs posted one after another to whichever replica answers, each until it is acknowledged."""

    def __init__(self, customer: Customer, replicas: list[Replica]) -> None:
        self._customer = customer
        self._urls = [str(replica.http.base_url) for replica in replicas]
        self._ended = threading.Event()
        self.acknowledged = 0

    def run(self) -> None:
        with httpx.Client(timeout=20, trust_env=False) as http:
            while not self._ended.wait(LOAD_PAUSE):
                self._post(http, f"load {self.acknowledged}")
                self.acknowledged += 1

    def _post(self, http: httpx.Client, text: str) -> None:
        """With a key, so that a connection which breaks in between leaves no doubt behind."""
        headers = {**self._customer.headers, "Idempotency-Key": text}
        for _ in range(100):
            for url in self._urls:
                try:
                    answer = http.post(f"{url}/jobs", json=self._customer.body(text), headers=headers)
                except httpx.TransportError:
                    continue
                if answer.status_code == 201:
                    self._customer.accepted.append(answer.json()["jobId"])
                    return
        raise AssertionError(f"no replica took {text}")

    @contextmanager
    def running(self) -> Iterator["Load"]:
        with ThreadPoolExecutor(1) as thread:
            posting = thread.submit(self.run)
            try:
                yield self
            finally:
                self._ended.set()
            posting.result(30)


def test_a_rolling_restart_under_load(database: Database, tmp_path: Path) -> None:
    """Two replicas are restarted one after the other while jobs come in: each exits with 0, no job is lost, and no
    call is made twice."""
    with serving(database, tmp_path, 2, drain_seconds=20) as (customer, replicas):
        customer.fake.set_latency(0.1)
        customer.employ(replicas[0], capacity=20)
        with Load(customer, replicas).running() as load:
            for replica in replicas:
                _restart_amid(customer, load, replica)
            _wait_for_progress(customer, load)
        jobs = customer.wait()
        assert {job.status for job in jobs} == {JobState.PROCESSED}
        assert len(set(customer.accepted)) == load.acknowledged == customer.fake.seen.total
        assert len({pid_of(attempt.owner) for job in jobs for attempt in job.ledger}) > 1
        check(customer)


def _restart_amid(customer: Customer, load: Load, replica: Replica) -> None:
    _wait_for_progress(customer, load)
    replica.terminate()
    assert replica.exit_code() == 0
    replica.start()


def _wait_for_progress(customer: Customer, load: Load) -> None:
    """Until jobs that were posted from now on have been done."""
    newest = load.acknowledged + 1
    eventually(lambda: len(customer.accepted) > newest)
    eventually(lambda: customer.job(customer.accepted[newest]).status in ENDED, within=30)
