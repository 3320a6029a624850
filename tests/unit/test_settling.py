"""From an outcome to what is stored: written in groups, kept while the database is away, never lost for its form."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from engine.errors import InvalidField, LeaseLost
from engine.jobs.handler import Assignment
from engine.jobs.held import Heartbeat, Held, LeaseTerms
from engine.jobs.job import Job
from engine.jobs.outcome import Completed, DeadLettered, Expired, Outcome, Released, Retried
from engine.jobs.queue import ClaimFilter, ClaimRequest
from engine.jobs.settler import Settler
from engine.jobs.states import JobState
from engine.records.store import Storage
from engine.storage.factory import open_storage
from tests.support.factories import CLIENT, NOW, make_attempt, make_call, make_failure, make_jobs, settlement
from tests.support.faulty import Fault, Faulty, Plan
from tests.support.rig import ScriptedHandler, new_job, running_pool
from tests.support.waiting import eventually
from utilities.clock import SystemClock
from utilities.hop import ThreadHop

T = TypeVar("T")
CLOCK = SystemClock()
MINUTE = timedelta(minutes=1)
SURROGATE = "\ud800"
"""Half of a character: JSON may spell it, no text can hold it."""


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    """Which back-end it is does not matter here."""
    opened = open_storage(f"sqlite:///{tmp_path / 'jobs.db'}", database="test", synchronous="NORMAL")
    yield opened
    opened.close()


def claimed(storage: Storage, count: int = 1) -> list[Job]:
    now = CLOCK.now()
    storage.jobs.insert(make_jobs(count, now=now))
    request = ClaimRequest(filter=ClaimFilter(client_id=CLIENT), owner="o", expires_at=now + MINUTE, limit=count)
    return storage.jobs.claim(request, now)


def on_a_loop(work: Callable[[ThreadHop], Awaitable[T]]) -> T:
    """Runs `work` on an event loop, with a hop to threads."""

    async def run() -> T:
        return await work(ThreadHop(threads))

    with ThreadPoolExecutor(4) as threads:
        return asyncio.run(run())


def settler_of(storage: Any, hop: ThreadHop) -> Settler:
    return Settler(storage.jobs, hop, CLOCK, random.Random(1))


def test_what_ends_together_is_written_together(storage: Storage) -> None:
    """Outcomes of the same few milliseconds share one write, and each gets its own answer."""
    jobs = claimed(storage, 20)
    faulty = Faulty(storage, Plan())
    gone = settlement(jobs[0], Completed(result={}), token=99)

    async def work(hop: ThreadHop) -> list[bool]:
        settler = settler_of(faulty, hop)
        mine = [settlement(job, Completed(result={})) for job in jobs]
        return await asyncio.gather(*(settler.settle(each) for each in [*mine, gone]))

    assert on_a_loop(work) == [True] * 20 + [False]
    assert faulty.log == ["jobs.settle"]


def test_one_that_cannot_be_stored_spoils_no_others(storage: Storage) -> None:
    """In a group the outcome that no database can hold is refused alone; the others are written."""
    jobs = claimed(storage, 3)
    results: list[dict[str, Any]] = [{"a": 1}, {"a": SURROGATE}, {"a": 3}]

    async def work(hop: ThreadHop) -> list[object]:
        settler = settler_of(storage, hop)
        each = (settlement(job, Completed(result=result)) for job, result in zip(jobs, results, strict=True))
        return await asyncio.gather(*map(settler.settle, each), return_exceptions=True)

    first, second, third = on_a_loop(work)
    assert (first, third) == (True, True)
    assert isinstance(second, InvalidField)


def test_a_late_booking_waits_for_the_database(storage: Storage) -> None:
    """What a lost attempt has cost is booked when the database is back."""
    [job] = claimed(storage)
    faulty = Faulty(storage, Plan(Fault.BEFORE, 1, 2))
    booked = on_a_loop(lambda hop: settler_of(faulty, hop).book(job.id, make_attempt(job.token)))
    assert booked is True
    assert faulty.log == ["jobs.book"] * 3


class Answering(ScriptedHandler):
    """Every call ends in the same, whatever it is."""

    def __init__(self, completed: Completed) -> None:
        super().__init__()
        self._completed = completed

    async def handle(self, work: Assignment) -> Completed:
        await super().handle(work)
        return self._completed


@pytest.mark.parametrize(
    "completed",
    [
        Completed(result={"answer": SURROGATE}),
        Completed(result={"answer": 2**70}),
        Completed(result={}, eval_result={"score": object()}),
        Completed(result={}, suggested_prompt_id=SURROGATE),
    ],
    ids=["half a character", "integer beyond 64 bits", "no JSON", "half a character in a name"],
)
def test_an_answer_that_cannot_be_stored_is_a_dead_letter(storage: Storage, completed: Completed) -> None:
    """A paid answer that no text can hold ends the job with an error that says so; it is not called for again."""
    handler = Answering(completed)
    with running_pool(storage, handler) as rig:
        rig.post([new_job(CLOCK)])
        [job] = rig.wait().values()
    assert job.status is JobState.ERROR_PROCESSING
    assert job.failure is not None
    assert (job.failure.error_type, job.totals.calls) == ("InvalidField", 1)
    assert handler.calls[job.id] == 1


def held_of(storage: Any, job: Job, hop: ThreadHop, good_for: float = 60.0) -> Held:
    now = CLOCK.monotonic()
    return Held(
        job, queue=storage.jobs, hop=hop, clock=CLOCK, good_until=now + good_for, overdue_at=now + good_for + 60
    )


def test_a_lease_that_may_have_run_out_starts_no_call(storage: Storage) -> None:
    """By the process's own steady clock, or because the job was taken away: no further call."""
    jobs = claimed(storage, 2)

    async def work(hop: ThreadHop) -> None:
        held_of(storage, jobs[0], hop).guard()
        with pytest.raises(LeaseLost):
            held_of(storage, jobs[0], hop, good_for=-0.001).guard()
        taken = held_of(storage, jobs[1], hop)
        taken.lose()
        with pytest.raises(LeaseLost):
            taken.guard()

    on_a_loop(work)


def test_reading_a_held_job_again_waits_out_an_outage(storage: Storage) -> None:
    """While the lease is certain, an attempt waits for the database; when it is not, the attempt ends."""
    [job] = claimed(storage)
    short, long_ = Faulty(storage, Plan(Fault.BEFORE, 1, 1)), Faulty(storage, Plan(Fault.BEFORE, 1, 10**6))

    async def work(hop: ThreadHop) -> Job:
        with pytest.raises(LeaseLost):
            await held_of(long_, job, hop, good_for=0.1).reload()
        return await held_of(short, job, hop).reload()

    assert on_a_loop(work).id == job.id


@pytest.mark.parametrize(
    ("outcome", "word", "charged"),
    [
        (Completed(result={}), "completed", False),
        (Retried(make_failure(attempts=1), NOW, charged=True), "retried", True),
        (Retried(make_failure(attempts=0), NOW, charged=False), "retried", False),
        (DeadLettered(make_failure(attempts=1)), "dead_lettered", True),
        (Released("drain"), "released", False),
        (Expired(), "lease_lost", False),
    ],
)
def test_the_ledgers_entry_says_how_it_ended(storage: Storage, outcome: Outcome, word: str, charged: bool) -> None:
    """Every outcome has its word on the ledger, and only a failure that counts against the budget is charged."""
    [job] = claimed(storage)

    async def work(hop: ThreadHop) -> None:
        held = held_of(storage, job, hop)
        held.record(make_call())
        entry = held.attempt(outcome, NOW)
        assert (entry.outcome, entry.charged, entry.token, entry.owner) == (word, charged, job.token, "o")
        assert len(entry.calls) == 1

    on_a_loop(work)


def test_a_heartbeat_extends_what_is_due_and_tells_what_is_lost(storage: Storage) -> None:
    """Leases a third of which has passed are extended in one write; who lost his job is told; fresh ones are left."""
    due, lost, fresh, overdue = claimed(storage, 4)
    storage.jobs.settle([settlement(lost, Released("elsewhere"))], CLOCK.now())
    faulty = Faulty(storage, Plan())
    terms = LeaseTerms.of(timedelta(seconds=60))

    async def work(hop: ThreadHop) -> tuple[Held, ...]:
        beating = Heartbeat(faulty.jobs, hop, CLOCK, terms)  # type: ignore[attr-defined]
        all_held = tuple(held_of(storage, job, hop, good_for=1.0) for job in (due, lost, fresh, overdue))
        all_held[2].good_until += 60
        all_held[3].overdue_at = CLOCK.monotonic()
        for held in all_held:
            beating.add(held)
        await beating.beat()
        return all_held

    extended, told, untouched, given_up = on_a_loop(work)
    assert faulty.log == ["jobs.extend"]
    assert extended.good_until > CLOCK.monotonic() + 50
    assert told.lost
    assert [held.lost for held in (extended, untouched, given_up)] == [False] * 3
    assert given_up.good_until < CLOCK.monotonic() + 1


def test_a_heartbeat_goes_on_after_an_outage(storage: Storage) -> None:
    """A beat that finds the database away is followed by the next one."""
    [job] = claimed(storage)
    faulty = Faulty(storage, Plan(Fault.BEFORE, 1, 2))

    async def work(hop: ThreadHop) -> Held:
        beating = Heartbeat(faulty.jobs, hop, CLOCK, LeaseTerms.of(timedelta(seconds=0.6)))  # type: ignore[attr-defined]
        held = held_of(storage, job, hop, good_for=0.1)
        beating.add(held)
        before = held.good_until
        running = asyncio.ensure_future(beating.run())
        await hop(eventually, lambda: held.good_until > before)
        running.cancel()
        return held

    assert not on_a_loop(work).lost
    assert faulty.log[:3] == ["jobs.extend"] * 3
