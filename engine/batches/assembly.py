"""What drives the batches of this replica, put together."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial

from engine.batches.errand import BatchErrand, BatchTools
from engine.batches.sweeping import Sweeper
from engine.batches.worker import keep_batch_worker
from engine.driving import Driver
from engine.errors import StorageUnavailable
from engine.jobs.signals import JobSignals
from engine.records.store import Storage
from utilities.clock import Clock
from utilities.ids import ObjectIds


class Batches:
    """Whether or not it was started, `wake` tells it of new batches and changed ones.

    `hire` is called at the start: it sees to it that somebody takes the batches' jobs.
    """

    def __init__(
        self, tools: BatchTools, *, replica: str, lease: timedelta, poll: float, hire: Callable[[], None] | None = None
    ) -> None:
        self._hire = hire
        self._driver = Driver(
            BatchErrand(tools), name="batches", owner=replica, clock=tools.clock, lease=lease, poll=poll
        )
        self._sweeper = Sweeper(tools)

    def start(self) -> None:
        if self._hire is not None:
            with suppress(StorageUnavailable):  # it is there from an earlier start, or comes with the next one
                self._hire()
        self._driver.start()

    def close(self) -> None:
        """Ends when the steps under way have ended."""
        self._driver.close()

    def wake(self, batch_id: str | None) -> None:
        self._driver.wake(batch_id)

    def tick(self) -> float:
        """Removes files that are over now and then; see Sweeper.tick."""
        return self._sweeper.tick()


def build_batches(
    storage: Storage,
    *,
    signals: JobSignals,
    clock: Clock,
    ids: ObjectIds,
    replica: str,
    lease: timedelta = timedelta(seconds=30),
    poll: float = 1.0,
    worker_capacity: int | None = None,
) -> Batches:
    """`replica` names this process in leases; see Driver for `lease` and `poll`.

    With a `worker_capacity` a shared worker takes the batches' jobs, so many of them in flight at a time.
    """
    tools = BatchTools(
        batches=storage.batches,
        files=storage.files,
        contents=storage.contents,
        models=storage.models,
        queue=storage.jobs,
        signals=signals,
        clock=clock,
        ids=ids,
    )
    hire = None if worker_capacity is None else partial(keep_batch_worker, storage, worker_capacity, clock, ids)
    return Batches(tools, replica=replica, lease=lease, poll=poll, hire=hire)
