"""The worker that takes the jobs of batches where nobody has hired one."""

from contextlib import suppress

from engine.errors import Duplicate
from engine.jobs.queue import Page
from engine.metadata import Metadata
from engine.records.batches import OPERATION
from engine.records.store import Storage, Where
from engine.records.values import Worker, WorkerConfig, WorkerScope, WorkerStatus
from utilities.clock import Clock
from utilities.ids import ObjectIds

NAME = "batches"
_OWNER = "admin"
_POLL_SECONDS = 10


def keep_batch_worker(storage: Storage, capacity: int, clock: Clock, ids: ObjectIds) -> None:
    """Adds the shared worker, running, where there is none of its name; one that was stopped stays so."""
    shared = Where(equals={"scope": [str(WorkerScope.ALL)], "name": [NAME]})
    if storage.workers.find(shared, Page(limit=1)):
        return
    worker = Worker(
        id=ids.new(),
        name=NAME,
        client_id=_OWNER,
        scope=WorkerScope.ALL,
        status=WorkerStatus.RUNNING,
        config=WorkerConfig(poll_interval=_POLL_SECONDS, max_items_per_batch=capacity, operation_filter=OPERATION),
        metadata=Metadata(created_at=clock.now(), created_by=_OWNER),
    )
    with suppress(Duplicate):  # another replica was faster
        storage.workers.add(worker)
