"""The port between the consumer, which owns leases and outcomes, and what a kind of job means."""

from typing import Protocol

from engine.jobs.job import Call, Job
from engine.jobs.outcome import Completed


class Assignment(Protocol):
    """A job held under a lease, as its handler sees it.

    `record` puts a provider call on the attempt's ledger the moment it ends, however it ends: a handler that is
    cancelled in a call records it with outcome `unknown` and lets the cancellation pass.
    """

    @property
    def job(self) -> Job: ...

    def guard(self) -> None:
        """Call before every call. Raises LeaseLost where the lease can have run out by this process's own clock, and
        CallsUsedUp where the job has made as many calls as it may."""
        ...

    async def reload(self) -> Job:
        """The job with edits made since; raises LeaseLost where it is no longer held. Call before further steps.

        An outage of the database is waited out for as long as the lease is certain.
        """
        ...

    def record(self, call: Call) -> None: ...


class JobHandler(Protocol):
    """Does a job. Raises MetasyncError for every failure it foresees; the retry policy decides what follows."""

    async def handle(self, work: Assignment) -> Completed: ...
