"""The ports through which the API asks something of the workers.

Workers are started and stopped by desired state, which is stored and which a replica's pool follows.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from engine.errors import MetasyncError
from engine.llm import Completion
from engine.records.values import Model, Worker


class WorkerControl(Protocol):
    """This replica's pool, as seen by the services."""

    def placed(self, worker: Worker, now: datetime) -> Worker:
        """`worker` as a running one that this replica takes: lease, thread_id and started_at are set."""
        ...

    def nudge(self) -> None:
        """Desired state has changed: look at it now rather than at the next tick. Returns at once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What trying a model came to: exactly one of `completion` and `error` is set. `duration` is in seconds.

    `called` are the models that were called, in order; the outcome is the last one's.
    """

    duration: float
    called: tuple[Model, ...] = ()
    completion: Completion | None = None
    error: MetasyncError | None = None


class ModelTrials(Protocol):
    """Tries models out, on the event loop it is first used on."""

    async def run(self, model: Model) -> Trial:
        """One tiny call as a worker would make it, outside of any job. Whatever goes wrong with it is the answer.

        For a router its targets are called in the order of its strategy, until one has no failure that sends on to the
        next. Raises StorageError where they cannot be read.
        """
        ...
