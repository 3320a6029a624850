"""What a pool and its consumers go by."""

from dataclasses import dataclass
from datetime import timedelta

from engine.jobs.consumer import ConsumerTerms
from engine.jobs.held import LeaseTerms
from engine.jobs.matching import claim_filter
from engine.jobs.queue import ClaimFilter
from engine.records.values import Worker

_DIRECT = "direct"
_ANY_TIME = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTerms:
    """`incarnation` names this process and no other; `grace` is how long a stopped worker's calls may go on."""

    incarnation: str
    most_threads: int
    lease: timedelta
    worker_lease: timedelta
    attempt_limit: timedelta
    grace: timedelta

    @property
    def direct_owner(self) -> str:
        """Names in leases who holds jobs that are run here without a worker; so no worker pays for them."""
        return f"{_DIRECT}:{self.incarnation}"


def worker_terms(worker: Worker, terms: PoolTerms) -> ConsumerTerms:
    """For the consumer that runs `worker`."""
    config = worker.config
    return ConsumerTerms(
        worker=worker.id,
        owner=f"{worker.id}@{terms.incarnation}",
        wanted=claim_filter(worker),
        capacity=config.max_items_per_batch,
        poll_interval=timedelta(seconds=config.poll_interval),
        lease=LeaseTerms.of(terms.lease),
        attempt_limit=terms.attempt_limit,
    )


def adopter_terms(terms: PoolTerms) -> ConsumerTerms:
    """For a consumer that claims nothing."""
    return ConsumerTerms(
        worker=_DIRECT,
        owner=terms.direct_owner,
        wanted=ClaimFilter(),
        capacity=0,
        poll_interval=_ANY_TIME,
        lease=LeaseTerms.of(terms.lease),
        attempt_limit=terms.attempt_limit,
    )
