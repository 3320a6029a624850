"""Jobs that are run at once, without a worker."""

from collections.abc import Callable, Sequence
from contextvars import Context
from datetime import datetime

from engine.jobs.held import LeaseTerms
from engine.jobs.job import Job, Lease
from engine.jobs.rooms import Rooms
from engine.llm import Level
from llm_workers.pool import WorkerPool


class PoolRuns:
    """Implements engine.records.control.DirectRuns: on the pool's own loops, which keep leases, settle and drain."""

    def __init__(
        self, pool: WorkerPool, rooms: Rooms, most: int, levels: Callable[[str], Sequence[Level]] = lambda _: ()
    ) -> None:
        self.most = most
        self.levels = levels
        self._pool = pool
        self._terms = pool.terms
        self._rooms = rooms

    @property
    def in_flight(self) -> int:
        return self._pool.adopted

    @property
    def draining(self) -> bool:
        return self._pool.draining

    def has_money(self, client_id: str) -> bool:
        return client_id not in self._rooms.shut_clients()

    def lease(self, now: datetime) -> Lease:
        return Lease(self._terms.direct_owner, now + self._terms.lease)

    def run(self, job: Job, asked_at: float) -> None:
        # A loop that is opened here outlives the request: what it logs of itself is not the request's.
        consumer, thread = Context().run(self._pool.adopter)
        good_until = LeaseTerms.of(self._terms.lease).good_until(asked_at)
        thread.call(lambda: consumer.adopt(job, good_until))
