"""Budgets of searches, against models that take all that they may and fail in ways that cost: none is overshot."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.jobs.job import Attempt, Call, Job
from engine.jobs.outcome import Completed, DeadLettered, Expired, Outcome, Retried, Settlement
from engine.jobs.queue import ClaimFilter, ClaimRequest, JobQuery
from engine.jobs.states import JobState
from engine.llm import Usage, cost_of_usage
from engine.records.runs import Run, RunStatus
from engine.records.searches import RunBudget
from engine.records.store import Storage
from engine.records.values import Money
from llm_optimizer.allowance import Need
from llm_workers.prompting import user_text
from tests.faults.test_searches import begun
from tests.support.backends import SQLITE
from tests.support.completing import LeapingClock
from tests.support.factories import CLIENT, make_failure
from tests.support.optimizing import Bench, Play
from tests.support.toy_world import PRICES, Toy
from utilities.clock import SystemClock

pytestmark = pytest.mark.parametrize("backend", [SQLITE], indirect=True)
CLOCK = SystemClock()


@dataclass
class Greedy(Bench):
    """A worker whose models use a token for every byte, and answer with as many tokens as they may.

    `trouble` is the share of attempts that go wrong: an answer that is lost, an attempt that is lost with its process,
    an answer that is asked for again, one that is paid for and of no use. `taken` is what all of it came to, told or
    not.
    """

    trouble: float = 0.0
    seed: int = 0
    taken: Need = field(default_factory=Need)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    def play(self, play: Play) -> list[str]:
        del play
        now = CLOCK.now()
        request = ClaimRequest(
            filter=ClaimFilter(client_id=CLIENT), owner="player", expires_at=now + timedelta(minutes=1), limit=1000
        )
        jobs = self.truth.jobs.claim(request, now)
        assert all(self.truth.jobs.settle([self._settled(job) for job in jobs], now))
        return [job.id for job in jobs]

    def _settled(self, job: Job) -> Settlement:
        assert isinstance(self.subjects, Toy)
        calls: list[Call] = []
        outcome: Outcome = DeadLettered(make_failure())
        how = "well" if self._chance.random() >= self.trouble else self._chance.choice(("lost", "died", "again", "bad"))
        if job.may_call(calls):
            calls.append(self._call(job, told=how not in ("lost", "died")))
            outcome = self._outcome(job, how, self.subjects.play)
        if how == "again" and job.may_call(calls):
            calls.append(self._call(job, told=True, again=True))
        attempt = Attempt(
            token=job.token,
            owner="player",
            started_at=CLOCK.now(),
            ended_at=CLOCK.now(),
            outcome="lease_lost" if isinstance(outcome, Expired) else "completed",
            calls=() if isinstance(outcome, Expired) else tuple(calls),
        )
        return Settlement(job_id=job.id, token=job.token, outcome=outcome, attempt=attempt)

    def _outcome(self, job: Job, how: str, play: Callable[[Job], Outcome]) -> Outcome:
        if how == "died":
            return Expired()
        if how == "lost" and job.attempts + 1 < job.max_attempts:
            return Retried(make_failure(), job.metadata.created_at, charged=True)
        if how in ("lost", "bad"):
            return DeadLettered(make_failure(attempts=job.attempts + 1))
        done = play(job)
        assert isinstance(done, Completed)
        return done

    def _call(self, job: Job, *, told: bool, again: bool = False) -> Call:
        assert isinstance(self.subjects, Toy)
        limits = [limit for limit in (self.subjects.limit, job.most_output) if limit is not None]
        longest = min(limits, default=100_000)
        sent = len(f"{job.instructions}{user_text(job.request_data)}".encode()) + (longest if again else 0)
        usage = Usage(input_tokens=sent, output_tokens=longest)
        cost = cost_of_usage(usage, PRICES)
        self.taken += Need(1, sent + longest, cost.input + cost.output)
        return Call(
            step="work",
            model="m",
            started_at=CLOCK.now(),
            duration=0.1,
            outcome="ok" if told else "unknown",
            input_tokens=sent if told else None,
            output_tokens=longest if told else None,
            input_cost=cost.input if told else None,
            output_cost=cost.output if told else None,
            currency="USD" if told else None,
        )


def searched(
    storage: Storage, toy: Toy, budget: RunBudget, holdout: int | None = None, **how: Any
) -> tuple[Greedy, Run]:
    bench = Greedy(storage, storage, toy, **how)
    endless = {"maxIterations": 1000, "patience": 0}
    run = begun(bench, budget=budget, strategy="refine", parameters=endless, force=True, holdout=holdout)
    return bench, bench.stepped(run.id, most=4000)


def caps(budget: RunBudget, taken: Need) -> list[tuple[Decimal, Decimal]]:
    """What was taken of each currency that is restricted, and how much of it there was."""
    amount = None if budget.amount is None else budget.amount.amount
    pairs = ((taken.calls, budget.calls), (taken.tokens, budget.tokens), (taken.amount, amount))
    return [(Decimal(used), Decimal(cap)) for used, cap in pairs if cap is not None]


BUDGETS = st.one_of(
    st.builds(RunBudget, calls=st.integers(0, 200)),
    st.builds(RunBudget, tokens=st.integers(0, 150_000)),
    st.builds(RunBudget, amount=st.builds(Money, st.decimals(0, 200, places=2), st.just("USD"))),
    st.builds(
        RunBudget,
        calls=st.integers(50, 200),
        tokens=st.integers(20_000, 150_000),
        amount=st.builds(Money, st.decimals(20, 200, places=2), st.just("USD")),
    ),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    budget=BUDGETS,
    toy=st.builds(Toy, st.just(30), st.booleans(), limit=st.none() | st.integers(1, 3_000)),
    trouble=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 9),
)
def test_no_budget_is_overshot(storage: Storage, budget: RunBudget, toy: Toy, trouble: float, seed: int) -> None:
    """Whatever the models answer, and whatever goes wrong: all that providers may charge for stays within the budget,
    also what nobody told of."""
    bench, run = searched(storage, toy, budget, trouble=trouble, seed=seed)
    assert all(used <= cap for used, cap in caps(budget, bench.taken))
    assert run.status in (RunStatus.COMPLETED, RunStatus.FAILED)
    assert run.totals.calls <= bench.taken.calls


@pytest.mark.parametrize(
    "budget", [RunBudget(calls=100), RunBudget(tokens=60_000), RunBudget(amount=Money(Decimal(60), "USD"))]
)
@pytest.mark.parametrize("judged", [False, True])
def test_a_budget_is_used(storage: Storage, budget: RunBudget, judged: bool) -> None:
    """A search that has more to try uses most of its budget: what was reserved and not taken is free again."""
    toy = Toy(examples=100, judged=judged, limit=100, always_useless=True)
    bench, run = searched(storage, toy, budget, holdout=0)
    assert run.progress is not None
    assert run.progress.finish == "budget"
    [(used, cap)] = caps(budget, bench.taken)
    assert cap * 4 / 5 <= used <= cap


@pytest.mark.parametrize(("judged", "least", "pair"), [(False, 60, 2), (True, 93, 4)])
def test_a_proof_uses_the_last_calls(storage: Storage, judged: bool, least: int, pair: int) -> None:
    """Where a budget is too small for the whole holdout, fewer calls are left in the end than one more pair takes."""
    for calls in range(least, least + 8):
        toy = Toy(examples=60, judged=judged, limit=100)
        bench, run = searched(storage, toy, RunBudget(calls=calls))
        assert run.progress is not None
        numbers = run.progress.numbers
        assert 0 < numbers["test"]["count"] < numbers["examples"]["holdout"]
        assert calls - bench.taken.calls < pair


def test_the_deadline_ends_what_is_in_flight(storage: Storage) -> None:
    """When the time is over, jobs that wait and jobs that are worked on are withdrawn, and none is made any more."""
    clock = LeapingClock()
    bench = Bench(storage, storage, Toy(), clock=clock)
    run = begun(bench, budget=RunBudget(seconds=60.0))
    errand = bench.errand()
    assert 0 < (errand.step(run) or 0) <= 0.1
    now = clock.now()
    request = ClaimRequest(
        filter=ClaimFilter(client_id=CLIENT), owner="player", expires_at=now + timedelta(hours=1), limit=3
    )
    held = storage.jobs.claim(request, now)
    assert len(held) == 3
    asked = storage.jobs.count(JobQuery(client_id=CLIENT))
    clock.leap(60.0)
    for _ in range(10):
        stored = errand.get(run.id)
        if stored is not None:
            errand.step(stored)
    ended = storage.runs.get(run.id)
    assert ended is not None
    assert ended.progress is not None
    assert (ended.status, ended.progress.finish) == (RunStatus.COMPLETED, "budget")
    assert storage.jobs.count(JobQuery(client_id=CLIENT, status=JobState.CANCELED)) == asked
    assert storage.jobs.count(JobQuery(client_id=CLIENT)) == asked


def test_a_short_time_is_waited_for_exactly(storage: Storage) -> None:
    """Whoever drives the run looks again when its time is over, not at the next look that was due anyway."""
    clock = LeapingClock(stopped=True)
    bench = Bench(storage, storage, Toy(), clock=clock)
    run = begun(bench, budget=RunBudget(seconds=60.0), holdout=0)
    errand = bench.errand()
    errand.step(run)
    over = run.metadata.created_at + timedelta(seconds=60)
    clock.leap((over - clock.now()).total_seconds() - 0.05)
    assert errand.step(replace(run)) == pytest.approx(0.05)


def test_a_process_that_dies_past_the_deadline_loses_no_bill(storage: Storage) -> None:
    """What a step had asked when its process died is answered and counted by the next one, though its time is over:
    else the proof at the end would have it to spend again."""
    clock, toy = LeapingClock(stopped=True), Toy()
    bench = Bench(storage, storage, toy, clock=clock)
    run = begun(bench, budget=RunBudget(seconds=60.0, calls=400))
    bench.errand().step(run)
    ids = bench.play(toy.play)
    assert len(ids) > 5
    clock.leap((run.metadata.created_at - clock.now()).total_seconds() + 61.0)
    ended = bench.stepped(run.id, play=toy.play)
    assert ended.progress is not None
    assert (ended.status, ended.progress.finish) == (RunStatus.COMPLETED, "budget")
    assert ended.totals.calls == len(ids)
    assert ended.progress.baseline is not None
    assert {job.status for job in storage.jobs.get_many(ids).values()} == {JobState.CONSUMED}
