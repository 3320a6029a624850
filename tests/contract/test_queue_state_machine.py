"""Any sequence of operations on any back-end does what the pure model says.

After every step the jobs, their ledgers and the sums agree with the model, and these invariants of the promises under
failure hold: (1) each job is in one state, and leaves a terminal one only by a recorded event; (2) accepted jobs are
counted once each; (4) no write with a stale token is accepted; (8) charged attempts stay within the maximum;
(10) after a drain nothing is leased.
"""

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from operator import add
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engine.errors import TransitionRefused
from engine.jobs.changes import after_event, deleted
from engine.jobs.job import Attempt, Job
from engine.jobs.outcome import Completed, DeadLettered, Expired, Outcome, Released, Retried, Settlement
from engine.jobs.queue import ClaimFilter, ClaimRequest, Hold, JobQuery, Page
from engine.jobs.references import filter_texts
from engine.jobs.states import Event, JobState
from engine.records.store import Storage
from engine.usage import UsageQuery
from tests.support.factories import NOW, make_attempt, make_call, make_failure, make_jobs
from tests.support.queue_model import QueueModel, by_dimensions, by_key, summary_of, usage_of

CLIENTS = ("client-a", "client-b")
REFERENCES = (None, {"env": "prod"}, {"env": "prod", "n": 5}, {"env": "test"})
SECOND = timedelta(seconds=1)
EVER = UsageQuery(first=date.min, last=date.max)
OUTCOMES = ("completed", "retried", "waited", "dead_lettered", "released")
PRICES = (("USD", Decimal("0.000000000001")), ("EUR", Decimal("12.5")), (None, None))
OUTSIDE_EVENTS = (
    Event.CANCEL,
    Event.CONSUME,
    Event.REJECT,
    Event.REDRIVE,
    Event.REOFFER,
    Event.REOPEN,
    Event.REQUEUE,
    Event.FORCE_DEAD_LETTER,
    Event.FORCE_REJECT,
)

clients = st.sampled_from(CLIENTS)
picks = st.integers(0, 1_000)
prices = st.lists(st.sampled_from(PRICES), max_size=2)
filters = st.builds(
    ClaimFilter,
    client_id=clients,
    operation=st.sampled_from((None, "a", "b")),
    model=st.sampled_from((None, "m", "n")),
    references=st.sampled_from(((), filter_texts({"env": "prod"}), filter_texts({"env": "prod", "n": "5"}))),
)


def calls_at(costs: list[Any]) -> tuple[Any, ...]:
    return tuple(make_call(currency=currency, input_cost=cost, output_cost=cost) for currency, cost in costs)


class QueueMachine(RuleBasedStateMachine):
    """Drives one storage and the model with the same operations, and compares all that both answer."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self.storage = storage
        self.queue = storage.jobs
        self.model = QueueModel()
        self.now = NOW
        self.accepted: list[str] = []
        self.holds: list[Job] = []
        self.written: list[Settlement] = []
        self.snapshots: list[Job] = []
        self.tokens: dict[str, int] = {}

    def teardown(self) -> None:
        """Leave the database as if empty for the next example."""
        while jobs := self.queue.find(JobQuery(), Page()):
            assert all(self.queue.compare_and_set([deleted(job, self.now, by="admin") for job in jobs], self.now))

    @initialize()
    def start_empty(self) -> None:
        assert self.queue.count(JobQuery()) == 0
        self.used_before = by_dimensions(self.storage.usage.rows(EVER))

    @rule(seconds=st.integers(0, 90))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule(
        count=st.integers(1, 4),
        client_id=clients,
        operation=st.sampled_from("ab"),
        model=st.sampled_from("mn"),
        priority=st.integers(1, 3),
        reference=st.sampled_from(REFERENCES),
        delay=st.sampled_from((None, 0, 30)),
    )
    def enqueue(self, count: int, delay: int | None, reference: Any, **fields: Any) -> None:
        due_at = None if delay is None else self.now + delay * SECOND
        jobs = make_jobs(count, now=self.now, due_at=due_at, client_reference=reference, max_attempts=2, **fields)
        self.queue.insert(jobs)
        self.queue.insert(jobs[:1])
        for job in jobs:
            self.model.put(job, self.now)
            self.accepted.append(job.id)
            self.tokens[job.id] = 0

    @rule(wanted=filters, limit=st.integers(1, 5), lease=st.integers(1, 60))
    def claim(self, wanted: ClaimFilter, limit: int, lease: int) -> None:
        request = ClaimRequest(filter=wanted, owner="holder", expires_at=self.now + lease * SECOND, limit=limit)
        claimed = self.queue.claim(request, self.now)
        assert [replace(job, revision=0) for job in claimed] == self.model.claim(request, self.now)
        self.holds += claimed
        self.snapshots += claimed[:1]

    @precondition(lambda self: self.holds)
    @rule(chosen=st.lists(picks, min_size=1, max_size=4), lease=st.integers(1, 60))
    def extend(self, chosen: list[int], lease: int) -> None:
        held = {job.id: Hold(job.id, job.token) for job in map(self._held, chosen)}
        until = self.now + lease * SECOND
        kept = self.queue.extend(list(held.values()), until, self.now)
        assert kept == self.model.extend(list(held.values()), until)

    @precondition(lambda self: self.holds)
    @rule(chosen=st.lists(st.tuples(picks, st.sampled_from(OUTCOMES), prices), min_size=1, max_size=3))
    def settle(self, chosen: list[tuple[int, str, list[Any]]]) -> None:
        """Any holder, current or long fenced off, reports any outcome."""
        self._settle([self._settlement(self._held(pick), name, costs) for pick, name, costs in chosen])

    @precondition(lambda self: self.written)
    @rule(pick=picks)
    def settle_again(self, pick: int) -> None:
        self._settle([self.written[pick % len(self.written)]])

    @rule()
    def recover(self) -> None:
        """What housekeeping does with leases that ran out."""
        expired = self.queue.expired(self.now, 100)
        overdue = [job for job in self.model.jobs.values() if job.lease and job.lease.expires_at <= self.now]
        assert sorted(job.id for job in expired) == sorted(job.id for job in overdue)
        self._settle([self._lost(job) for job in expired])
        assert self.queue.expired(self.now, 100) == []

    @precondition(lambda self: self.holds)
    @rule(pick=picks)
    def recover_too_early(self, pick: int) -> None:
        self._settle([self._lost(self._held(pick))])

    @rule()
    def promote(self) -> None:
        assert self.queue.promote(self.now, 100) == self.model.promote(self.now)

    @precondition(lambda self: self.holds)
    @rule(pick=picks, costs=prices)
    def book(self, pick: int, costs: list[Any]) -> None:
        held = self._held(pick)
        attempt = make_attempt(held.token, outcome="canceled", calls=calls_at(costs))
        assert self.queue.book(held.id, attempt) == self.model.book(held.id, attempt)

    @precondition(lambda self: self.model.jobs)
    @rule(pick=picks, event=st.sampled_from(OUTSIDE_EVENTS))
    def change_from_outside(self, pick: int, event: Event) -> None:
        """Cancel, force, redrive and the rest: read, decided by the table, written back."""
        job = self._current(pick)
        failure = make_failure() if event is Event.FORCE_DEAD_LETTER else None
        try:
            changed = after_event(job, event, self.now, by="admin", failure=failure)
        except TransitionRefused:
            return
        self._replace(changed)

    @precondition(lambda self: self.model.jobs)
    @rule(
        pick=picks, priority=st.integers(1, 3), operation=st.sampled_from("ab"), reference=st.sampled_from(REFERENCES)
    )
    def edit(self, pick: int, priority: int, operation: str, reference: Any) -> None:
        job = self._current(pick)
        self._replace(replace(job, priority=priority, operation=operation, client_reference=reference))

    @precondition(lambda self: self.model.jobs)
    @rule(pick=picks)
    def delete(self, pick: int) -> None:
        self._replace(deleted(self._current(pick), self.now, by="admin"))

    @precondition(lambda self: self.snapshots)
    @rule(pick=picks)
    def edit_what_was_read_before(self, pick: int) -> None:
        """An edit is written only if nothing has happened since it was read."""
        snapshot = self.snapshots[pick % len(self.snapshots)]
        stored = self.queue.get(snapshot.id)
        unchanged = stored is not None and stored.revision == snapshot.revision
        edited = replace(snapshot, priority=snapshot.priority + 1)
        assert self.queue.compare_and_set([edited], self.now) == [unchanged]
        if unchanged:
            self.model.put(replace(edited, revision=0), self.now)

    @rule()
    def drain(self) -> None:
        """Every current holder gives back what it holds: nothing is leased then."""
        leased = [job for job in self.model.jobs.values() if job.lease is not None]
        self._settle([self._settlement(job, "released", []) for job in leased])
        assert self.queue.expired(self.now + timedelta(days=9), 100) == []
        assert self.queue.count(JobQuery(status=JobState.PROCESSING)) == 0

    @invariant()
    def jobs_agree(self) -> None:
        stored = self.queue.get_many(self.accepted)
        assert {job_id: replace(job, revision=0) for job_id, job in stored.items()} == self.model.jobs
        for job_id, job in stored.items():
            assert job.token >= self.tokens[job_id]
            self.tokens[job_id] = job.token
            assert (job.lease is not None) == (job.status is JobState.PROCESSING)
            assert job.attempts <= job.max_attempts
            assert job.totals.calls == sum(len(entry.calls) for entry in job.ledger)

    @invariant()
    def sums_agree(self) -> None:
        jobs = self.model.jobs.values()
        assert by_key(self.queue.summary(JobQuery())) == summary_of(jobs)
        mine = JobQuery(client_id=CLIENTS[0], operation="a")
        matching = [job for job in jobs if job.client_id == CLIENTS[0] and job.operation == "a"]
        assert by_key(self.queue.summary(mine)) == summary_of(matching)
        assert self.queue.count(JobQuery()) + len(self.model.buried) == len(self.accepted)

    @invariant()
    def usage_agrees(self) -> None:
        """Every call on a ledger is in the sums once, deleted jobs' too."""
        expected = usage_of([*self.model.jobs.values(), *self.model.buried.values()])
        for key, sums in self.used_before.items():
            expected[key] = tuple(map(add, sums, expected[key])) if key in expected else sums
        assert by_dimensions(self.storage.usage.rows(EVER)) == expected

    @invariant()
    def what_is_next_agrees(self) -> None:
        assert self.queue.next_due() == self.model.next_due()
        for wanted in (ClaimFilter(operation="a"), ClaimFilter(references=filter_texts({"env": "prod"}))):
            waiting = self.queue.waiting_clients(wanted, None, 10)
            assert waiting == sorted({job.client_id for job in self.model.ready(wanted)})

    def _held(self, pick: int) -> Job:
        return self.holds[pick % len(self.holds)]

    def _current(self, pick: int) -> Job:
        ids = sorted(self.model.jobs)
        job = self.queue.get(ids[pick % len(ids)])
        assert job is not None
        self.snapshots.append(job)
        return job

    def _replace(self, changed: Job) -> None:
        assert self.queue.compare_and_set([changed], self.now) == [True]
        self.model.put(replace(changed, revision=0), self.now)

    def _settle(self, group: list[Settlement]) -> None:
        written = self.queue.settle(group, self.now)
        assert written == [self.model.settle(one, self.now) for one in group]
        self.written += [one for one, done in zip(group, written, strict=True) if done]

    def _settlement(self, held: Job, name: str, costs: list[Any]) -> Settlement:
        outcome = self._outcome(held, name)
        charged = name in {"dead_lettered", "retried"}
        attempt = make_attempt(held.token, outcome=name, charged=charged, calls=calls_at(costs))
        return Settlement(job_id=held.id, token=held.token, outcome=outcome, attempt=attempt)

    def _outcome(self, held: Job, name: str) -> Outcome:
        """As the retry policy decides: the last attempt that is allowed ends in a dead letter."""
        charged = held.attempts + 1
        if name == "dead_lettered" or (name == "retried" and charged >= held.max_attempts):
            return DeadLettered(make_failure(attempts=charged))
        if name == "completed":
            return Completed(result={"n": held.token})
        if name == "released":
            return Released("drain")
        return Retried(make_failure(attempts=charged), self.now + 5 * SECOND, charged=name == "retried")

    def _lost(self, job: Job) -> Settlement:
        attempt = Attempt(
            token=job.token, owner="holder", started_at=NOW, ended_at=self.now, outcome="lease_lost", calls=()
        )
        return Settlement(job_id=job.id, token=job.token, outcome=Expired(), attempt=attempt, only_expired=True)


@pytest.mark.timeout(300)  # a thousand steps, each with a dozen round trips
def test_any_sequence_of_operations(storage: Storage, backend: str) -> None:
    """Whatever is done in whatever order, the back-end and the model agree after every step."""
    bounds = settings(
        max_examples=150 if backend == "sqlite" else 25,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(lambda: QueueMachine(storage), settings=bounds)
