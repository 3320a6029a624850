"""Jobs that are held, on every back-end: extending, settling, booking, and what happens when a lease runs out."""

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from engine.jobs.changes import after_event, after_settlement, deleted, with_attempt
from engine.jobs.job import Job, Lease
from engine.jobs.outcome import Completed, DeadLettered, Expired, Outcome, Released, Retried
from engine.jobs.queue import ClaimFilter, ClaimRequest, Hold, JobQuery
from engine.jobs.references import filter_texts
from engine.jobs.states import Event, JobState
from engine.records.store import Storage
from tests.support.factories import (
    CLIENT,
    IDS,
    MINUTE,
    NOW,
    make_attempt,
    make_call,
    make_failure,
    make_job,
    make_jobs,
    settlement,
)

EXPIRY = NOW + MINUTE
SECOND = timedelta(seconds=1)
OUTCOMES: list[Outcome] = [
    Completed(result={"value": [1, "x"]}),
    Completed(result={}, eval_result={"score": 1}, suggested_prompt_id="b" * 24),
    Retried(make_failure(raw="…"), NOW + MINUTE, charged=True),
    Retried(make_failure(), NOW, charged=True),
    Retried(make_failure(), NOW + MINUTE, charged=False),
    DeadLettered(make_failure(attempts=3)),
    Released("drain"),
    Expired(),
]


def held(storage: Storage, count: int = 1, expires_at: datetime = EXPIRY, **fields: object) -> list[Job]:
    """New jobs, claimed."""
    storage.jobs.insert(make_jobs(count, **fields))
    request = ClaimRequest(filter=ClaimFilter(client_id=CLIENT), owner="holder", expires_at=expires_at, limit=count)
    claimed = storage.jobs.claim(request, NOW)
    assert len(claimed) == count
    return claimed


def current(storage: Storage, job: Job) -> Job:
    found = storage.jobs.get(job.id)
    assert found is not None
    return found


def is_ready(storage: Storage, job: Job) -> bool:
    return storage.jobs.ahead_of(replace(job, priority=job.priority + 1), 10) == 1


def test_one_that_comes_in_claimed(storage: Storage) -> None:
    """A job stored with a lease is held like a claimed one: nobody gets it, its holder extends and settles it, an end
    of its lease gives it back, and to store it again changes nothing."""
    waiting, *rest = make_jobs(3, client_reference={"env": "prod"})
    lease = Lease("direct", EXPIRY)
    settled, lost = (after_event(job, Event.CLAIM, NOW, by="worker", lease=lease) for job in rest)
    storage.jobs.insert([waiting, settled, lost])
    assert current(storage, lost) == lost
    request = ClaimRequest(filter=ClaimFilter(client_id=CLIENT), owner="holder", expires_at=EXPIRY, limit=9)
    assert [job.id for job in storage.jobs.claim(request, NOW)] == [waiting.id]
    assert storage.jobs.extend([Hold(settled.id, settled.token)], EXPIRY + SECOND, NOW) == {settled.id}
    assert {job.id for job in storage.jobs.expired(EXPIRY, 9)} == {waiting.id, lost.id}
    assert storage.jobs.settle([settlement(settled, Completed(result={"n": 1}))], NOW) == [True]
    assert storage.jobs.settle([settlement(lost, Expired(), only_expired=True)], EXPIRY) == [True]
    storage.jobs.insert([settled, lost])
    assert current(storage, settled).status is JobState.PROCESSED
    assert is_ready(storage, lost)
    rows = {(row.status, row.count) for row in storage.jobs.summary(JobQuery())}
    assert rows == {(JobState.PROCESSED, 1), (JobState.PENDING, 1), (JobState.PROCESSING, 1)}


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: type(outcome).__name__)
@pytest.mark.parametrize("with_calls", [True, False])
def test_settle_agrees_with_the_model(storage: Storage, outcome: Outcome, with_calls: bool) -> None:
    """The stored job after each outcome is what the pure function makes of it, and ready where it is due."""
    [job] = held(storage, failure=make_failure(), attempts=1, client_reference={"env": "prod"})
    calls = (make_call(), make_call(step="eval", currency=None, input_cost=None)) if with_calls else ()
    attempt = make_attempt(job.token, outcome="any", calls=calls)
    written = settlement(job, outcome, attempt=attempt)
    now = NOW + SECOND
    assert storage.jobs.settle([written], now) == [True]
    expected = after_settlement(job, written, now)
    stored = current(storage, job)
    assert expected is not None
    assert replace(stored, revision=0) == replace(expected, revision=0)
    assert stored.revision > job.revision
    due = expected.status is JobState.PENDING and expected.due_at is None
    assert is_ready(storage, stored) == due
    texts = filter_texts({"env": "prod"})
    assert (storage.jobs.waiting_clients(ClaimFilter(references=texts), None, 1) == [CLIENT]) == due


def test_settle_without_an_attempt(storage: Storage) -> None:
    """A settlement may come without an attempt; then the ledger stays as it is."""
    [job] = held(storage)
    assert storage.jobs.settle([settlement(job, Released("drain"), attempt=None)], NOW) == [True]
    assert current(storage, job).ledger == ()


def test_settle_a_group(storage: Storage) -> None:
    """Each settlement of a group is answered for itself, in order; refused ones spoil nobody else's."""
    first, second, third = held(storage, 3)
    group = [
        settlement(first, Completed(result={"n": 1})),
        settlement(second, Completed(result={}), token=second.token + 1),
        settlement(make_job(), Completed(result={})),
        settlement(third, Released("stop")),
    ]
    assert storage.jobs.settle(group, NOW) == [True, False, False, True]
    states = [current(storage, job).status for job in (first, second, third)]
    assert states == [JobState.PROCESSED, JobState.PROCESSING, JobState.PENDING]
    assert storage.jobs.settle([], NOW) == []


def test_two_settlements_of_one_job_in_one_group(storage: Storage) -> None:
    """Whoever comes first in a group wins; the same again is a repetition, another outcome is refused."""
    [job] = held(storage)
    done = settlement(job, Completed(result={"n": 1}))
    other = settlement(job, DeadLettered(make_failure()))
    assert storage.jobs.settle([done, other, done], NOW) == [True, False, True]
    assert current(storage, job).response_data == {"n": 1}
    assert len(current(storage, job).ledger) == 1


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: type(outcome).__name__)
def test_repeating_a_settlement(storage: Storage, outcome: Outcome) -> None:
    """A settlement that was written answers True again and changes nothing, whatever has happened to the job since."""
    [job] = held(storage)
    written = settlement(job, outcome)
    assert storage.jobs.settle([written], NOW) == [True]
    after = current(storage, job)
    assert storage.jobs.settle([written], NOW) == [True]
    assert current(storage, job) == after
    forced = after_event(after, Event.FORCE_REJECT, NOW, by="admin")
    assert storage.jobs.compare_and_set([forced], NOW) == [True]
    assert storage.jobs.settle([written], NOW) == [True]
    assert current(storage, job).status is JobState.ERROR_CONSUMING


def test_a_settlement_that_lost_stays_refused(storage: Storage) -> None:
    """After another outcome of the same token, or a cancellation, the late one is refused every time."""
    first, second, gone = held(storage, 3)
    assert storage.jobs.settle([settlement(first, Released("stop"))], NOW) == [True]
    changes = [after_event(second, Event.CANCEL, NOW, by=CLIENT), deleted(gone, NOW, by=CLIENT)]
    assert storage.jobs.compare_and_set(changes, NOW) == [True, True]
    late = [settlement(job, Completed(result={})) for job in (first, second, gone)]
    for _ in range(2):
        assert storage.jobs.settle(late, NOW) == [False, False, False]
    assert current(storage, first).status is JobState.PENDING
    assert current(storage, second).status is JobState.CANCELED


def test_only_expired(storage: Storage) -> None:
    """With `only_expired` a settlement is refused as long as the lease runs, and written from its last instant on."""
    [job] = held(storage)
    lost = settlement(job, Expired(), only_expired=True)
    assert storage.jobs.settle([lost], EXPIRY - timedelta(milliseconds=1)) == [False]
    assert storage.jobs.settle([lost], EXPIRY) == [True]
    after = current(storage, job)
    assert (after.status, after.token, after.leases_lost) == (JobState.PENDING, job.token + 1, 1)


def test_recovery_loses_against_an_extension(storage: Storage) -> None:
    """A lease that is extended in the instant of its recovery stays with its holder."""
    [job] = held(storage)
    found = storage.jobs.expired(EXPIRY, 10)
    assert storage.jobs.extend([Hold(job.id, job.token)], EXPIRY + MINUTE, EXPIRY) == {job.id}
    lost = [settlement(one, Expired(), only_expired=True) for one in found]
    assert storage.jobs.settle(lost, EXPIRY) == [False]
    assert current(storage, job).token == job.token


def test_edits_survive_a_settlement(storage: Storage) -> None:
    """An edit made while the job was held is still there after it is settled."""
    [job] = held(storage)
    edited = replace(job, priority=1, request_data={"text": "new"}, client_reference={"n": 5}, max_attempts=9)
    assert storage.jobs.compare_and_set([edited], NOW) == [True]
    assert storage.jobs.settle([settlement(job, Completed(result={"n": 1}))], NOW) == [True]
    after = current(storage, job)
    assert (after.priority, after.max_attempts, after.request_data) == (1, 9, {"text": "new"})
    assert (after.client_reference, after.response_data) == ({"n": 5}, {"n": 1})


def test_extend(storage: Storage) -> None:
    """Leases held under their tokens move, and their jobs are told; others do not."""
    first, second, third = held(storage, 3)
    storage.jobs.settle([settlement(third, Completed(result={}))], NOW)
    holds = [Hold(first.id, first.token), Hold(second.id, second.token + 1), Hold(third.id, third.token)]
    holds.append(Hold(IDS.new(), 1))
    assert storage.jobs.extend(holds, EXPIRY + MINUTE, NOW) == {first.id}
    leases = [current(storage, job).lease for job in (first, second)]
    assert [lease and lease.expires_at for lease in leases] == [EXPIRY + MINUTE, EXPIRY]
    assert storage.jobs.extend([], EXPIRY, NOW) == frozenset()


def test_extending_a_lease_that_ran_out(storage: Storage) -> None:
    """An expired lease that nobody has recovered is extended; once recovered it is not."""
    [job] = held(storage)
    hold = Hold(job.id, job.token)
    late = EXPIRY + SECOND
    assert storage.jobs.extend([hold], late + MINUTE, late) == {job.id}
    assert storage.jobs.expired(late, 10) == []
    assert storage.jobs.settle([settlement(job, Expired(), only_expired=True)], late + MINUTE) == [True]
    assert storage.jobs.extend([hold], late + MINUTE, late + MINUTE) == frozenset()


def test_extending_spoils_a_stale_edit(storage: Storage) -> None:
    """An edit made from what was there before an extension cannot bring the old expiry back."""
    [job] = held(storage)
    storage.jobs.extend([Hold(job.id, job.token)], EXPIRY + MINUTE, NOW)
    assert storage.jobs.compare_and_set([replace(job, priority=1)], NOW) == [False]


def test_expired(storage: Storage) -> None:
    """Held jobs whose lease has run out, the longest first, at most `limit`."""
    [last] = held(storage, expires_at=NOW + 3 * SECOND)
    [first] = held(storage, expires_at=NOW + SECOND)
    [middle] = held(storage, expires_at=NOW + 2 * SECOND)
    held(storage, expires_at=NOW + MINUTE)
    storage.jobs.insert([make_job()])
    now = NOW + 3 * SECOND
    assert storage.jobs.expired(now, 10) == [current(storage, job) for job in (first, middle, last)]
    assert [job.id for job in storage.jobs.expired(now, 2)] == [first.id, middle.id]
    assert storage.jobs.expired(NOW, 10) == []


def test_next_due(storage: Storage) -> None:
    """The earliest not-before time or lease expiry that is not handled yet, past or future."""
    assert storage.jobs.next_due() is None
    storage.jobs.insert([make_job()])
    assert storage.jobs.next_due() is None
    later = make_job(due_at=NOW + 2 * MINUTE)
    storage.jobs.insert([later])
    assert storage.jobs.next_due() == NOW + 2 * MINUTE
    [job] = storage.jobs.claim(
        ClaimRequest(filter=ClaimFilter(client_id=CLIENT), owner="holder", expires_at=EXPIRY, limit=1), NOW
    )
    assert storage.jobs.next_due() == EXPIRY
    storage.jobs.settle([settlement(job, Completed(result={}))], NOW)
    assert storage.jobs.next_due() == NOW + 2 * MINUTE
    storage.jobs.promote(NOW + 3 * MINUTE, 10)
    assert storage.jobs.next_due() is None


def test_book_a_late_attempt(storage: Storage) -> None:
    """Calls that were paid for after the job was lost go on the ledger and into the totals; the state stays."""
    [job] = held(storage)
    lost = make_attempt(job.token, outcome="lease_lost", calls=())
    assert storage.jobs.settle([settlement(job, Expired(), attempt=lost)], EXPIRY) == [True]
    before = current(storage, job)
    paid = make_attempt(job.token, outcome="lease_lost")
    assert storage.jobs.book(job.id, paid) is True
    after = current(storage, job)
    assert replace(after, revision=0) == replace(with_attempt(before, paid), revision=0)
    assert after.totals.input_cost == Decimal("0.001")


def test_booking_twice(storage: Storage) -> None:
    """An attempt with calls is booked once: again, and any other of its token, is refused."""
    [job] = held(storage)
    assert storage.jobs.book(job.id, make_attempt(job.token)) is True
    before = current(storage, job)
    assert storage.jobs.book(job.id, make_attempt(job.token)) is False
    assert storage.jobs.book(job.id, make_attempt(job.token, calls=())) is False
    assert current(storage, job) == before


def test_booking_keeps_the_order_of_tokens(storage: Storage) -> None:
    """The ledger is in the order of tokens, however late an attempt is booked."""
    [job] = held(storage)
    for token in (3, 1, 2):
        assert storage.jobs.book(job.id, make_attempt(token)) is True
    assert [entry.token for entry in current(storage, job).ledger] == [1, 2, 3]


def test_booking_for_nobody(storage: Storage) -> None:
    """There is nothing to book on a job that never was."""
    assert storage.jobs.book(IDS.new(), make_attempt()) is False
    assert storage.jobs.book("x", make_attempt()) is False


def test_a_settlement_meets_a_booked_attempt(storage: Storage) -> None:
    """Where the attempt's calls are on the ledger already, settling adds nothing to the totals."""
    [job] = held(storage)
    assert storage.jobs.book(job.id, make_attempt(job.token, outcome="lease_lost")) is True
    assert storage.jobs.settle([settlement(job, Completed(result={}))], NOW) == [True]
    after = current(storage, job)
    assert after.status is JobState.PROCESSED
    assert after.totals.calls == 1
    assert len(after.ledger) == 1


def test_exact_money(storage: Storage) -> None:
    """Costs of any size and precision down to a trillionth come back to the last digit."""
    [job] = held(storage)
    costs = (Decimal("0.000000000001"), Decimal("1234567.123456789012"))
    calls = tuple(make_call(input_cost=cost, output_cost=cost) for cost in costs)
    assert storage.jobs.settle([settlement(job, Completed(result={}), attempt=make_attempt(1, calls=calls))], NOW)
    after = current(storage, job)
    assert after.totals.input_cost == sum(costs)
    assert tuple(call.output_cost for call in after.ledger[0].calls) == costs
