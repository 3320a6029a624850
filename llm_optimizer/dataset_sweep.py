"""How the items of deleted datasets go, and those of datasets whose making was never finished."""

import math
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from engine.errors import StorageCorrupt
from engine.jobs.queue import Page
from engine.records.datasets import DatasetPart, part_id
from engine.records.store import Storage, Where
from utilities.clock import Clock

log = structlog.get_logger(__name__)

_EVERY = 600.0
_AT_ONCE = 20
_MAKING = timedelta(hours=1)
_GRACE = timedelta(minutes=1)
"""An evaluation that found the dataset just before it was deleted has been stored by then."""

_MOST_NOTED = 10_000


class DatasetSweeper:
    """Looks at every dataset that has parts, one at a time, every ten minutes. Any number of replicas may do so.

    A dataset's parts are stored one after another, so of one that exists a single part is read.
    """

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._after: str | None = None
        self._noted: dict[str, datetime] = {}
        self._look_at = -math.inf

    def tick(self) -> float:
        """From any one thread; raises StorageUnavailable. Seconds until it is due again."""
        now = self._clock.monotonic()
        if now >= self._look_at:
            self._look_at = now + (1.0 if self._swept() else _EVERY)
        return self._look_at - now

    def _swept(self) -> bool:
        """As `sweep`; a part that cannot be read stops the round and nothing else."""
        try:
            return self.sweep()
        except StorageCorrupt as error:
            log.warning("dataset_sweep_stopped", reason=str(error))
            self._after = None
            return False

    def sweep(self) -> bool:
        """Goes on to the next dataset, or removes some parts of this one; whether there is more to look at."""
        found = self._storage.dataset_parts.find(Where(after=self._after), Page(limit=1))
        if not found:
            self._after = None
            return False
        [part] = found
        dataset = self._storage.datasets.get(part.dataset_id)
        if dataset is not None:
            self._after = part_id(dataset.id, len(dataset.starts) - 1)
        elif self._is_over(part):
            self._remove(part)
        else:
            self._after = part.id
        return True

    def _is_over(self, part: DatasetPart) -> bool:
        now = self._clock.now()
        if len(self._noted) >= _MOST_NOTED:
            self._noted.clear()
        since = self._noted.setdefault(part.dataset_id, now)
        if part.metadata.created_at + _MAKING > now or since + _GRACE > now:
            return False
        return not self._is_read(part.dataset_id)

    def _is_read(self, dataset_id: str) -> bool:
        """Whether an evaluation or a run that has not ended needs the items."""
        storage = self._storage
        evaluated = storage.evaluations.count(Where(equals={"open": [True], "datasetId": [dataset_id]}))
        return bool(evaluated or storage.runs.count(Where(equals={"open": [True], "search.datasetId": [dataset_id]})))

    def _remove(self, first: DatasetPart) -> None:
        """The part and those that follow it, with what they held."""
        number, now = int(first.id.rpartition("-")[2]), self._clock.now()
        ids = [part_id(first.dataset_id, each) for each in range(number, number + _AT_ONCE)]
        for part in self._storage.dataset_parts.get_many(ids).values():
            gone = replace(part, items=(), metadata=part.metadata.deleted(now, "removal"))
            self._storage.dataset_parts.compare_and_set(gone)
