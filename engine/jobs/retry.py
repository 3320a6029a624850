"""What to do after a failed attempt: a pure decision."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from engine.errors import BudgetExhausted, MetasyncError, StorageError, StorageUnavailable
from engine.jobs.job import Failure, Job
from engine.jobs.outcome import DeadLettered, Outcome, Retried
from engine.llm import ModelPaused, ProviderError, QuotaExhausted, RateLimited, TransientProviderError
from utilities.backoff import full_jitter

_RAW_LIMIT = 100_000
HELD_BACK = (ModelPaused.__name__, BudgetExhausted.__name__)
"""Types of errors with which no call was made: nothing has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Transient failures are retried with backoff and full jitter until the job's maxAttempts are used up.

    Waiting for a rate limit, a quota or the database charges nothing but has its own bound, `max_waits`; so have lost
    leases, `max_leases_lost`. A job that no call was made for waits for as long as its model takes none,
    or its money is used up: then it is ready again at once, and claims leave it where it is.
    """

    base: timedelta = timedelta(seconds=1)
    cap: timedelta = timedelta(minutes=1)
    quota_base: timedelta = timedelta(minutes=1)
    quota_cap: timedelta = timedelta(minutes=15)
    max_waits: int = 200
    max_leases_lost: int = 3

    def decide(self, job: Job, error: Exception, now: datetime, rng: random.Random) -> Outcome:
        """The outcome for `job`, whose `attempts` do not yet count this failure."""
        if isinstance(error, BudgetExhausted):
            return Retried(failure_of(error, job.attempts, now), now, charged=False)
        if isinstance(error, (RateLimited, QuotaExhausted, StorageUnavailable)):
            return self._wait(job, error, now, rng)
        charged = job.attempts + 1
        failure = failure_of(error, charged, now)
        if charged >= job.max_attempts or not is_transient(error):
            return DeadLettered(failure)
        return Retried(failure, now + self._delay(error, charged, rng), charged=True)

    def lost_too_often(self, job: Job) -> bool:
        """Whether one more lost lease is one too many: the job itself seems to kill its worker."""
        return job.leases_lost + 1 > self.max_leases_lost

    def _delay(self, error: Exception, failures: int, rng: random.Random) -> timedelta:
        wait = full_jitter(failures, base=self.base, cap=self.cap, rng=rng)
        announced = error.retry_after if isinstance(error, ProviderError) else None
        return wait if announced is None else max(wait, announced)

    def _wait(self, job: Job, error: MetasyncError, now: datetime, rng: random.Random) -> Outcome:
        failure = failure_of(error, job.attempts, now)
        if not isinstance(error, ModelPaused) and job.waits - _held_back(job) >= self.max_waits:
            return DeadLettered(failure)
        quota = isinstance(error, QuotaExhausted)
        base, cap = (self.quota_base, self.quota_cap) if quota else (self.base, self.cap)
        wait = full_jitter(job.waits + 1, base=base, cap=cap, rng=rng)
        announced = error.retry_after if isinstance(error, ProviderError) else None
        if announced is not None:
            wait = announced + min(wait, self.base)
        return Retried(failure, now + wait, charged=False)


def _held_back(job: Job) -> int:
    """How many of its waits were for a model or for money, without a call: they bring it no nearer to its end."""
    return sum(attempt.error_type in HELD_BACK for attempt in job.ledger)


def is_transient(error: Exception) -> bool:
    """Whether the same attempt may succeed later. An unforeseen exception may: it is retried within the budget."""
    if isinstance(error, MetasyncError):
        return isinstance(error, (TransientProviderError, StorageError))
    return True


def failure_of(error: Exception, attempts: int, now: datetime) -> Failure:
    """`error` as the job keeps it. An unforeseen exception shows its type only: its text may hold anything."""
    foreseen = isinstance(error, MetasyncError)
    told = error if isinstance(error, ProviderError) else None
    raw = None if told is None else told.raw
    return Failure(
        error_type=type(error).__name__,
        message=str(error) if foreseen else f"internal error: {type(error).__name__}",
        attempts=attempts,
        at=now,
        raw=raw[:_RAW_LIMIT] if raw is not None else None,
        status=None if told is None else told.status,
        complaint=None if told is None else told.complaint,
    )
