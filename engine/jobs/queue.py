"""The queue's port. These docstrings are the contract; `tests/contract/test_job_queue.py` holds every back-end to it.

No policy lives behind this port: a back-end receives instants, leases and outcomes and makes guarded writes. All
methods are synchronous, may be called from any thread, and raise StorageUnavailable when the database cannot be
reached: an outage never looks like an empty queue. A call that raised StorageUnavailable may or may not have been
done; each method says why repeating it is safe. Deleted jobs are invisible to every method.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from engine.jobs.job import ZERO, Attempt, Job
from engine.jobs.outcome import Settlement
from engine.jobs.states import JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimFilter:
    """Which jobs a consumer takes. None and () do not restrict; `references` are texts of engine.jobs.references."""

    client_id: str | None = None
    operation: str | None = None
    model: str | None = None
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
    """`filter.client_id` must be set: fairness between clients is the consumer's policy, not the back-end's.

    `caps` says by the names of models how many of their jobs to lease at most; others are not restricted.
    """

    filter: ClaimFilter
    owner: str
    expires_at: datetime
    limit: int
    caps: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hold:
    """A job as its holder knows it."""

    job_id: str
    token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """All given conditions hold together. `client_id` None means every client's (admin)."""

    client_id: str | None = None
    status: JobState | None = None
    operation: str | None = None
    model: str | None = None
    priority: int | None = None
    client_job_id: str | None = None
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """`newest_first` reverses insertion order."""

    limit: int = 1000
    skip: int = 0
    newest_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRow:
    """Sums over the jobs of one status whose totals share one set of currencies.

    `measured` of the `count` jobs have made at least one call; `currencies` is empty where no call was priced.
    """

    status: JobState
    currencies: frozenset[str]
    count: int
    measured: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    duration: float = 0.0
    input_cost: Decimal = ZERO
    output_cost: Decimal = ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyRecord:
    """What an Idempotency-Key stood for: the `count` jobs whose ids follow `first_id`, made at `created_at`."""

    client_id: str
    key: str
    fingerprint: str
    first_id: str
    count: int
    created_at: datetime
    expires_at: datetime


class JobQueue(Protocol):
    """Jobs, durable and guarded. Ready jobs are PENDING ones that are due and not waiting to be promoted."""

    def insert(self, jobs: Sequence[Job]) -> None:
        """Store new jobs, PENDING or claimed already: all of them or, when this raises, none visibly left behind.

        On return they are durable. A job whose id exists already is left as it is, so repeating is safe. A job whose
        `due_at` lies in the future (after its created_at) waits for `promote`. One with a lease is held as if `claim`
        had given it out.
        """
        ...

    def reserve(self, record: IdempotencyRecord, now: datetime) -> IdempotencyRecord:
        """Store `record` unless an unexpired one with its client and key exists; answers the one that now stands."""
        ...

    def forget_expired(self, now: datetime) -> int:
        """Delete idempotency records that have expired; answers how many."""
        ...

    def claim(self, request: ClaimRequest, now: datetime) -> list[Job]:
        """Lease up to `limit` ready jobs that pass the filter, by priority, then id, to `owner` until `expires_at`.

        Each is PROCESSING with a token one higher than before. No job is ever given to two claimers. A lost race may
        give a short or empty batch while jobs are still ready. Repeating after an error is safe: what the lost call
        claimed comes back when its lease expires. A job that cannot be read is left out, and said in the log.

        With `caps`, jobs of a model that has no room never stand in the way of those behind them; that costs a query
        for each model that has jobs ready.
        """
        ...

    def waiting_clients(self, wanted: ClaimFilter, after: str | None, limit: int) -> list[str]:
        """Ids, rising and greater than `after`, of clients that have a ready job passing `wanted`; at most `limit`.

        Costs a seek per client, not per job. With references in the filter it may name clients whose jobs pass only
        the first of them.
        """
        ...

    def extend(self, holds: Sequence[Hold], expires_at: datetime, now: datetime) -> frozenset[str]:
        """Move the leases still held under their tokens to `expires_at`; answers the ids of those that were.

        An expired lease that nobody has recovered yet is extended too. Repeating is safe.
        """
        ...

    def settle(self, settlements: Sequence[Settlement], now: datetime) -> list[bool]:
        """Write outcomes in one group; True for each that was written.

        Guard: the job is PROCESSING under the settlement's token (and, with `only_expired`, its lease has run out at
        `now`). Completed sets responseData, evalResult and suggestedPromptId and clears the failure; Retried keeps
        its failure; Released clears nothing. Only result, queue and ledger fields are touched, so edits made
        meanwhile to other fields survive. The lease is gone afterwards. Durable on return. Repeating is safe: a
        settlement that had been written answers True again as long as the ledger shows its attempt with the same
        token and outcome.
        """
        ...

    def book(self, job_id: str, attempt: Attempt) -> bool:
        """Put a late attempt on the ledger and into the totals, without touching the job's state.

        An entry of the same token that had no calls (a lost lease) is replaced, one that had calls is kept and False
        answered: booking twice is harmless. Also books on deleted jobs. False when there is no such job.
        """
        ...

    def expired(self, now: datetime, limit: int) -> list[Job]:
        """PROCESSING jobs whose lease has run out at `now`, the longest first; those that can be read."""
        ...

    def promote(self, now: datetime, limit: int) -> int:
        """Make jobs ready whose not-before time has come; answers how many."""
        ...

    def next_due(self) -> datetime | None:
        """The earliest not-before time or lease expiry not handled yet, past or future; None if there is none."""
        ...

    def get(self, job_id: str) -> Job | None:
        """The job as it is now; None for unknown, malformed and deleted ids."""
        ...

    def get_many(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """Those of the jobs that exist, by id, with one query."""
        ...

    def compare_and_set(self, jobs: Sequence[Job], now: datetime) -> list[bool]:
        """Replace each job whose stored revision equals the given one's; True for each that was replaced.

        For edits, deletions and transitions asked for from outside. The stored revision rises by one. A PENDING job
        becomes ready if its `due_at` is None or has passed at `now`.
        """
        ...

    def find(self, query: JobQuery, page: Page) -> list[Job]:
        """Matching jobs in insertion order."""
        ...

    def count(self, query: JobQuery) -> int:
        """How many `find` would give without a page."""
        ...

    def summary(self, query: JobQuery) -> list[SummaryRow]:
        """Counts and sums of the matching jobs, exact. Flat in the number of jobs unless `client_job_id`,
        `priority` or `references` restrict it."""
        ...

    def ahead_of(self, job: Job, limit: int) -> int:
        """How many ready jobs of the same client would be claimed before `job`, counted up to `limit`."""
        ...
