"""What happens in the same instant, and what hangs: faults 3, 5, 8, 9, 20 and 23 of docs/promises.md."""

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from engine.errors import LeaseLost, TransitionRefused
from engine.jobs.changes import after_event
from engine.jobs.handler import Assignment
from engine.jobs.job import Attempt, Call, Job
from engine.jobs.outcome import Completed, Settlement
from engine.jobs.queue import ClaimFilter, ClaimRequest, JobQuery
from engine.jobs.recovery import recover
from engine.jobs.retry import RetryPolicy
from engine.jobs.states import Event, JobState
from engine.records.store import Storage
from tests.support.faulty import Fault, Faulty, Plan
from tests.support.rig import Rig, ScriptedHandler, new_job, new_worker, running_pool
from tests.support.service import one_of_each
from tests.support.waiting import eventually
from utilities.clock import SystemClock, to_milliseconds

CLOCK = SystemClock()
SHORT = timedelta(seconds=1)
HIT_EVERYTHING = 10**9


def _get(storage: Storage, job_id: str) -> Job:
    job = storage.jobs.get(job_id)
    assert job is not None
    return job


def _together(*actions: Callable[[], object]) -> list[object]:
    """Runs the actions at the same time, each in a thread; their answers, or the MetasyncError they raised."""
    start = threading.Barrier(len(actions))
    answers: list[object] = [None] * len(actions)

    def run(place: int) -> None:
        start.wait(10)
        answers[place] = actions[place]()

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return answers


def _claimed(storage: Storage, expires_at: datetime, now: datetime) -> Job:
    storage.jobs.insert([new_job(CLOCK)])
    request = ClaimRequest(filter=ClaimFilter(client_id="client-a"), owner="o", expires_at=expires_at, limit=1)
    return storage.jobs.claim(request, now)[0]


def _cancel(rig_or_storage: Storage, job_id: str) -> bool:
    """Cancel as the API does: read, change, write if unchanged, again on a conflict. False where it is not allowed."""
    while True:
        job = _get(rig_or_storage, job_id)
        try:
            changed = after_event(job, Event.CANCEL, CLOCK.now(), by="client-a")
        except TransitionRefused:
            return False
        if rig_or_storage.jobs.compare_and_set([changed], CLOCK.now()) == [True]:
            return True


def _completion(job: Job, now: datetime) -> Settlement:
    call = Call(step="work", model="m", started_at=now, duration=0.1, outcome="ok", input_tokens=3)
    attempt = Attempt(token=job.token, owner="o", started_at=now, ended_at=now, outcome="completed", calls=(call,))
    return Settlement(job_id=job.id, token=job.token, outcome=Completed(result={"a": 1}), attempt=attempt)


def test_recovery_and_completion_in_the_same_instant(storage: Storage) -> None:
    """Fault 3: exactly one of them wins; a completed job never goes back, a recovered one refuses the completion."""
    for _ in range(15):
        now = CLOCK.now()
        job = _claimed(storage, now - timedelta(seconds=1), now - timedelta(seconds=2))
        settlement = _completion(job, now)
        completed, recovered = _together(
            lambda settlement=settlement, now=now: storage.jobs.settle([settlement], now),
            lambda now=now: recover(storage.jobs, RetryPolicy(), now),
        )
        left = _get(storage, job.id)
        if completed == [True]:
            assert left.status is JobState.PROCESSED
            assert left.response_data == {"a": 1}
        else:
            assert recovered.requeued == 1  # type: ignore[attr-defined]
            assert (left.status, left.token, left.response_data) == (JobState.PENDING, job.token + 1, None)
            assert storage.jobs.book(job.id, settlement.attempt) is True  # type: ignore[arg-type]
            assert _get(storage, job.id).totals.input_tokens == 3
        assert _cancel(storage, job.id)


def test_cancel_in_the_instant_of_completion(storage: Storage) -> None:
    """Fault 20: whoever comes first, the job ends canceled once, its call is booked, and the counts stay exact."""
    rounds = 15
    for _ in range(rounds):
        now = CLOCK.now()
        job = _claimed(storage, now + timedelta(minutes=1), now)
        settlement = _completion(job, now)
        completed, _ = _together(
            lambda settlement=settlement, now=now: storage.jobs.settle([settlement], now),
            lambda job=job: _cancel(storage, job.id),
        )
        if completed == [False]:
            assert storage.jobs.book(job.id, settlement.attempt) is True  # type: ignore[arg-type]
        left = _get(storage, job.id)
        assert left.status is JobState.CANCELED
        assert (left.totals.calls, left.totals.input_tokens) == (1, 3)
        assert not _cancel(storage, job.id)
    [row] = storage.jobs.summary(JobQuery())
    assert (row.status, row.count, row.measured, row.input_tokens) == (JobState.CANCELED, rounds, rounds, 3 * rounds)


def test_cancel_while_running_drops_the_call(storage: Storage) -> None:
    """Fault 20: the running call is dropped at once and booked with unknown outcome; the slot is free again."""

    async def first_hangs(job: Job, _number: int) -> None:
        if job.request_data.get("hangs"):
            await asyncio.Event().wait()

    worker = new_worker(CLOCK, capacity=1)
    storage.workers.add(worker)
    with running_pool(storage, ScriptedHandler(first_hangs), worker=worker) as rig:
        hanging = new_job(CLOCK, request_data={"hangs": True})
        rig.post([hanging])
        eventually(lambda: rig.handler.calls[hanging.id] == 1)
        rig.post([new_job(CLOCK)])
        assert _cancel(storage, hanging.id)
        rig.signals.fenced(hanging.id)
        rig.wait()
        left = eventually(lambda: _booked(storage, hanging.id))
    assert left.status is JobState.CANCELED
    assert [(entry.outcome, [call.outcome for call in entry.calls]) for entry in left.ledger] == [
        ("canceled", ["unknown"])
    ]


def _booked(storage: Storage, job_id: str) -> Job | None:
    job = _get(storage, job_id)
    return job if job.totals.calls else None


def test_a_call_that_hangs_is_ended(storage: Storage) -> None:
    """Fault 5: the limit per attempt frees the slot, charges an attempt, and other jobs go on meanwhile."""

    async def hang(job: Job, _number: int) -> None:
        if job.request_data.get("hangs"):
            await asyncio.Event().wait()

    limit = timedelta(milliseconds=300)
    with running_pool(storage, ScriptedHandler(hang), attempt_limit=limit) as rig:
        rig.post([new_job(CLOCK, request_data={"hangs": True}, max_attempts=2), *(new_job(CLOCK) for _ in range(6))])
        jobs = list(rig.wait().values())
    [hung] = [job for job in jobs if job.request_data.get("hangs")]
    assert hung.status is JobState.ERROR_PROCESSING
    assert hung.failure is not None
    assert (hung.failure.error_type, hung.failure.attempts) == ("ProviderTimeout", 2)
    assert [call.outcome for entry in hung.ledger for call in entry.calls] == ["unknown", "unknown"]
    assert {job.status for job in jobs if job is not hung} == {JobState.PROCESSED}


def test_a_long_call_keeps_its_lease(storage: Storage) -> None:
    """A call that takes longer than the lease is kept alive by heartbeats, and no lease is lost."""
    gate = threading.Event()

    async def wait_for_gate(_job: Job, _number: int) -> None:
        await asyncio.to_thread(gate.wait, 20)

    with running_pool(storage, ScriptedHandler(wait_for_gate), lease=SHORT) as rig:
        job = new_job(CLOCK)
        rig.post([job])
        first = eventually(lambda: _get(storage, job.id).lease)
        eventually(lambda: _lease_end(storage, job.id) > first.expires_at + SHORT)
        gate.set()
        left = rig.wait()[job.id]
    assert (left.status, left.leases_lost, len(left.ledger)) == (JobState.PROCESSED, 0, 1)


def _lease_end(storage: Storage, job_id: str) -> datetime:
    lease = _get(storage, job_id).lease
    assert lease is not None
    return lease.expires_at


class _TwoSteps(ScriptedHandler):
    """A handler whose second call may start only while the lease is certain."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = threading.Event()
        self.first = threading.Event()

    async def handle(self, work: Assignment) -> Completed:
        if work.job.leases_lost:
            return await super().handle(work)
        self.first.set()
        while True:
            try:
                work.guard()
            except LeaseLost:
                self.refused.set()
                raise
            await asyncio.sleep(0.02)


def test_no_call_starts_once_the_lease_can_have_run_out(storage: Storage) -> None:
    """Fault 8: cut off from the database for longer than the lease, the holder starts nothing more by its own clock;
    afterwards the job is done again, once."""
    plan = Plan(None, 1, HIT_EVERYTHING)
    faulty, handler = Faulty(storage, plan), _TwoSteps()
    worker = new_worker(CLOCK)
    storage.workers.add(worker)
    with running_pool(faulty, handler, worker=worker, lease=SHORT, reader=storage) as rig:
        job = new_job(CLOCK)
        rig.post([job])
        assert handler.first.wait(10)
        plan.fault = Fault.BEFORE
        assert handler.refused.wait(10)
        assert _get(storage, job.id).status is JobState.PROCESSING
        plan.fault = None
        left = rig.wait()[job.id]
    assert (left.status, left.leases_lost) == (JobState.PROCESSED, 1)
    assert [entry.outcome for entry in left.ledger] == ["lease_lost", "completed"]


class _Skewed:
    """A clock that is wrong by `offset`."""

    def __init__(self, offset: timedelta) -> None:
        self._offset = offset

    def now(self) -> datetime:
        return to_milliseconds(CLOCK.now() + self._offset)

    def monotonic(self) -> float:
        return CLOCK.monotonic()


def test_replicas_whose_clocks_are_minutes_apart(storage: Storage) -> None:
    """Fault 9: a replica that runs ahead takes leases back too early, but every job ends once, all calls booked."""
    handler = ScriptedHandler()
    workers = [new_worker(CLOCK), new_worker(CLOCK)]
    for worker in workers:
        storage.workers.add(worker)
    with (
        running_pool(storage, handler, worker=workers[0], clock=_Skewed(timedelta(minutes=-3))) as behind,
        running_pool(storage, handler, worker=workers[1], clock=_Skewed(timedelta(minutes=3))),
    ):
        behind.post([new_job(CLOCK, f"client-{place % 3}") for place in range(60)])
        behind.wait()
    for job in storage.jobs.get_many(behind.posted).values():
        assert job.status is JobState.PROCESSED
        assert sum(entry.outcome == "completed" for entry in job.ledger) == 1
        assert handler.calls[job.id] == sum(len(entry.calls) for entry in job.ledger) == job.totals.calls


def test_a_flood_does_not_starve_others(storage: Storage) -> None:
    """Fault 23: on a shared worker another client's job starts as soon as a slot is free, however long the queue."""
    gate = threading.Event()

    async def wait_for_gate(_job: Job, _number: int) -> None:
        await asyncio.to_thread(gate.wait, 20)

    with running_pool(storage, ScriptedHandler(wait_for_gate)) as rig:
        rig.post([new_job(CLOCK, "flood", priority=1) for _ in range(1500)])
        eventually(lambda: len(rig.handler.order) == 4)
        small = new_job(CLOCK, "small", priority=9)
        rig.post([small])
        gate.set()
        eventually(lambda: small.id in rig.handler.order)
        place = rig.handler.order.index(small.id)
        rig.pool.begin_drain()
    assert place <= 12


@pytest.mark.parametrize("backend", one_of_each()[:1], indirect=True)
@pytest.mark.parametrize("interval", [1, 2])
def test_an_idle_worker_asks_once_per_poll_interval(storage: Storage, interval: int) -> None:
    """Polls start short and back off: between the last ones lies the whole interval, and each is one operation."""
    faulty = Faulty(storage, Plan())
    worker = new_worker(CLOCK, poll=interval)
    storage.workers.add(worker)
    with running_pool(faulty, ScriptedHandler(), worker=worker, reader=storage):
        eventually(lambda: faulty.log.count("jobs.waiting_clients") >= 6)
        instants = faulty.instants("jobs.waiting_clients")[:6]
    gaps = [later - earlier for earlier, later in pairwise(instants)]
    assert gaps[-1] >= interval * 0.95
    assert "jobs.claim" not in faulty.log


def test_a_rig_is_what_it_says(storage: Storage) -> None:
    """After a drain nothing is leased, and the worker is free for another replica (invariant 10)."""
    with running_pool(storage, ScriptedHandler()) as rig:
        rig.post([new_job(CLOCK) for _ in range(20)])
        rig.wait()
    _assert_nothing_leased(rig)


def _assert_nothing_leased(rig: Rig) -> None:
    assert rig.storage.jobs.count(JobQuery(status=JobState.PROCESSING)) == 0
    stored = rig.storage.workers.get(rig.worker.id)
    assert stored is not None
    assert stored.lease is None
