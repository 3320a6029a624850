"""The port through which the API starts and stops workers: desired state is stored, a replica's pool follows it."""

from datetime import datetime
from typing import Protocol

from engine.records.values import Worker


class WorkerControl(Protocol):
    """This replica's pool, as seen by the services."""

    def placed(self, worker: Worker, now: datetime) -> Worker:
        """`worker` as a running one that this replica takes: lease, thread_id and started_at are set."""
        ...

    def nudge(self) -> None:
        """Desired state has changed: look at it now rather than at the next tick. Returns at once."""
        ...
