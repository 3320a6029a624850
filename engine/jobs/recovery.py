"""What time does to jobs: waiting ones become due, and leases that ran out are taken back."""

from datetime import datetime
from typing import NamedTuple

import structlog

from engine.jobs.job import Attempt, Failure, Job
from engine.jobs.outcome import DeadLettered, Expired, Settlement
from engine.jobs.queue import JobQueue
from engine.jobs.retry import RetryPolicy

_PROMOTED_AT_ONCE = 1000
_RECOVERED_AT_ONCE = 200

log = structlog.get_logger(__name__)


class Recovered(NamedTuple):
    """`promoted` became due; `requeued` lost their lease and wait again; `dead` lost it too often.

    `more` tells that a limit was reached, so that another round is worth its while now.
    """

    promoted: int
    requeued: int
    dead: int
    more: bool


def recover(queue: JobQueue, policy: RetryPolicy, now: datetime) -> Recovered:
    """One round. Any number of replicas may do it at once: each write is guarded by the token and the lease's expiry.

    Raises StorageUnavailable.
    """
    promoted = queue.promote(now, _PROMOTED_AT_ONCE)
    expired = queue.expired(now, _RECOVERED_AT_ONCE)
    settlements = [_settlement(job, policy, now) for job in expired]
    written = queue.settle(settlements, now) if settlements else []
    done = [settlement for settlement, ok in zip(settlements, written, strict=True) if ok]
    dead = sum(isinstance(settlement.outcome, DeadLettered) for settlement in done)
    for settlement in done:
        log.warning("lease_lost", job=settlement.job_id, dead_letter=isinstance(settlement.outcome, DeadLettered))
    more = promoted == _PROMOTED_AT_ONCE or len(expired) == _RECOVERED_AT_ONCE
    return Recovered(promoted, len(done) - dead, dead, more)


def _settlement(job: Job, policy: RetryPolicy, now: datetime) -> Settlement:
    failure = Failure(
        error_type="LeaseLost",
        message=f"whoever held the job stopped extending its lease ({job.leases_lost + 1} times so far)",
        attempts=job.attempts,
        at=now,
    )
    attempt = Attempt(
        token=job.token,
        owner=job.lease.owner if job.lease is not None else "unknown",
        started_at=job.metadata.updated_at or job.metadata.created_at,
        ended_at=now,
        outcome="lease_lost",
        error_type=failure.error_type,
        error_message=failure.message,
    )
    outcome = DeadLettered(failure) if policy.lost_too_often(job) else Expired()
    return Settlement(job_id=job.id, token=job.token, outcome=outcome, attempt=attempt, only_expired=True)
