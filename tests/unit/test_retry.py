"""What becomes of a job after a failed attempt: its budget, the bound on waiting, and what is kept of the error."""

import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import LeaseLost, MetasyncError, NotFound, StorageError, StorageUnavailable, UnknownReference
from engine.jobs.outcome import DeadLettered, Retried
from engine.jobs.retry import RetryPolicy, failure_of, is_transient
from engine.llm import (
    PermanentProviderError,
    ProviderTimeout,
    QuotaExhausted,
    RateLimited,
    TransientProviderError,
    UnusableAnswer,
)
from tests.support.factories import NOW, make_attempt, make_job

POLICY = RetryPolicy()
SECOND = timedelta(seconds=1)


def chance() -> random.Random:
    return random.Random(7)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (TransientProviderError("503"), True),
        (ProviderTimeout("no answer"), True),
        (StorageError("unexpected"), True),
        (RuntimeError("nobody foresaw this"), True),
        (PermanentProviderError("400"), False),
        (UnusableAnswer("not JSON"), False),
        (UnknownReference("model", "gone"), False),
        (NotFound("Prompt", "x"), False),
        (LeaseLost("gone"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_may_get_better_is_retried(error: Exception, transient: bool) -> None:
    """Only what may succeed later is tried again; the rest is a dead letter after its first attempt."""
    outcome = POLICY.decide(make_job(), error, NOW, chance())
    assert is_transient(error) is transient
    assert isinstance(outcome, Retried if transient else DeadLettered)
    assert outcome.failure.attempts == 1


@given(most=st.integers(1, 20), seed=st.integers())
def test_a_job_has_its_attempts_and_no_more(most: int, seed: int) -> None:
    """A job that always fails is retried maxAttempts - 1 times, each time charged, and is a dead letter then."""
    job, rng = make_job(max_attempts=most), random.Random(seed)
    for failures in range(1, most):
        outcome = POLICY.decide(job, TransientProviderError("again"), NOW, rng)
        assert isinstance(outcome, Retried)
        assert outcome.charged
        assert outcome.failure.attempts == failures
        assert NOW <= outcome.due_at <= NOW + min(POLICY.cap, POLICY.base * 2 ** (failures - 1))
        job = make_job(max_attempts=most, attempts=failures)
    last = POLICY.decide(job, TransientProviderError("again"), NOW, rng)
    assert last == DeadLettered(failure_of(TransientProviderError("again"), most, NOW))


@pytest.mark.parametrize("error", [RateLimited, QuotaExhausted, StorageUnavailable])
def test_waiting_is_free_and_bounded(error: type[MetasyncError]) -> None:
    """Waiting for a limit, a quota or the database charges no attempt, until the bound on waits is reached."""
    worn = make_job(max_attempts=1, attempts=0, waits=POLICY.max_waits - 1)
    outcome = POLICY.decide(worn, error("wait"), NOW, chance())
    assert isinstance(outcome, Retried)
    assert not outcome.charged
    assert outcome.failure.attempts == 0
    done = POLICY.decide(make_job(waits=POLICY.max_waits), error("wait"), NOW, chance())
    assert isinstance(done, DeadLettered)


def test_an_announced_wait_is_kept() -> None:
    """A job is not due before the time that the provider announced, and not long after it."""
    announced = timedelta(minutes=3)
    for error in (
        RateLimited("429", retry_after=announced),
        QuotaExhausted("billing", retry_after=announced),
        TransientProviderError("503", retry_after=announced),
    ):
        outcome = POLICY.decide(make_job(), error, NOW, chance())
        assert isinstance(outcome, Retried)
        assert announced <= outcome.due_at - NOW <= announced + SECOND


@pytest.mark.parametrize(("met", "kept"), [("ModelPaused", True), ("BudgetExhausted", True), ("RateLimited", False)])
def test_being_held_back_brings_no_end_nearer(met: str, kept: bool) -> None:
    """A job for which its model or its money had no room for long, and no call was made, outlives its first refusal."""
    ledger = tuple(
        make_attempt(token, outcome="retried", error_type=met, calls=()) for token in range(1, POLICY.max_waits + 1)
    )
    outcome = POLICY.decide(make_job(waits=len(ledger), ledger=ledger), RateLimited("429"), NOW, chance())
    assert isinstance(outcome, Retried if kept else DeadLettered)


def test_who_waits_for_the_same_limit_does_not_come_back_as_one() -> None:
    """Jobs that a limit sends away at the same time are due at different times."""
    rng = chance()
    error = RateLimited("429", retry_after=timedelta(seconds=10))
    due = {POLICY.decide(make_job(), error, NOW, rng).due_at for _ in range(50)}  # type: ignore[union-attr]
    assert len(due) > 40


@given(waits=st.integers(0, 199), seed=st.integers())
def test_a_quota_is_probed_now_and_then(waits: int, seed: int) -> None:
    """Without an announcement a quota is tried again within a quarter of an hour, a rate limit within a minute."""
    job, rng = make_job(waits=waits), random.Random(seed)
    for error, longest in ((QuotaExhausted("q"), POLICY.quota_cap), (RateLimited("r"), POLICY.cap)):
        outcome = POLICY.decide(job, error, NOW, rng)
        assert isinstance(outcome, Retried)
        assert NOW <= outcome.due_at <= NOW + longest


def test_a_job_that_loses_every_lease_is_given_up() -> None:
    """Three leases may be lost, the fourth is one too many."""
    assert [POLICY.lost_too_often(make_job(leases_lost=lost)) for lost in range(5)] == [False] * 3 + [True] * 2


def test_an_unforeseen_error_shows_its_type_only() -> None:
    """The text of an exception that nobody foresaw may hold anything, so it is not kept."""
    failure = failure_of(ValueError("the key is sk-123"), 2, NOW)
    assert (failure.error_type, failure.message) == ("ValueError", "internal error: ValueError")
    assert (failure.attempts, failure.at, failure.raw) == (2, NOW, None)


def test_a_providers_raw_answer_is_kept_up_to_a_length() -> None:
    """What the provider answered is kept with the failure, its first hundred thousand characters."""
    failure = failure_of(UnusableAnswer("not JSON", raw="x" * 250_000), 1, NOW)
    assert failure.message == "not JSON"
    assert failure.raw == "x" * 100_000
