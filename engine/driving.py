"""Whoever drives records that go on by steps: batches, evaluations, optimization runs.

A record is driven by one replica at a time, which holds its lease and writes it by its revision: whoever has lost the
lease fails to write. Steps are short, say up to a few seconds; between two of them everything that matters is stored,
so that any replica can go on at any time.
"""

import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar

import structlog

from engine.errors import LeaseLost, StorageCorrupt, StorageUnavailable
from engine.jobs.job import Lease
from utilities.clock import Clock

log = structlog.get_logger(__name__)

_GIVING_BACK_SECONDS = 5.0


class Driven(Protocol):
    """A record with steps left may be held under a lease."""

    @property
    def id(self) -> str: ...
    @property
    def lease(self) -> Lease | None: ...


D = TypeVar("D", bound=Driven)


class Errand(Protocol[D]):
    """One kind of driven records. Called from the driver's threads, for one record by one thread at a time."""

    def unfinished(self) -> Sequence[D]:
        """The records that have steps left, whoever drives them. Raises StorageUnavailable."""
        ...

    def get(self, record_id: str) -> D | None:
        """The record as it is stored now; None where it is gone or has no step left."""
        ...

    def held(self, record: D, lease: Lease | None) -> D:
        """`record` written under `lease`, None: anybody's, by its revision. Raises LeaseLost where somebody has changed
        it."""
        ...

    def step(self, record: D) -> float | None:
        """Does what can be done now for the record, which this replica holds; it has just been read.

        What it writes keeps the record's lease, by its revision. Answers in how many seconds to look again at the
        latest (0: at once), None when no step is left. Raises LeaseLost where a write found the record changed, and
        StorageUnavailable; either way the record is read again before its next step.
        """
        ...


@dataclass(slots=True)
class _Place(Generic[D]):
    """A record that is driven here. `woken` tells that it was asked for while its step ran."""

    record_id: str
    due: float
    running: "Future[None] | None" = None
    woken: bool = False


class Driver(Generic[D]):
    """Drives the records of one errand in this replica, `owner`, with `threads` of them at a time."""

    def __init__(
        self,
        errand: Errand[D],
        *,
        name: str,
        owner: str,
        clock: Clock,
        lease: timedelta = timedelta(seconds=30),
        poll: float = 1.0,
        threads: int = 2,
    ) -> None:
        """`poll` is after how many seconds to look for records that other replicas have begun or left."""
        self._errand = errand
        self._name = name
        self._owner = owner
        self._clock = clock
        self._lease = lease
        self._poll = poll
        self._places: dict[str, _Place[D]] = {}
        self._scan_at = -math.inf
        self._changed = threading.Condition()
        self._stopping = False
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._thread = threading.Thread(target=self._run, name=f"{name}-driver", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self, record_id: str | None = None) -> None:
        """Something has happened to the record: take its next step now. None: records may have been added.

        From any thread; returns at once.
        """
        with self._changed:
            place = self._places.get(record_id) if record_id is not None else None
            if place is None:
                self._scan_at = -math.inf
            elif place.running is not None:
                place.woken = True
            else:
                place.due = -math.inf
            self._changed.notify_all()

    def close(self) -> None:
        """Ends when the steps under way have ended, and gives back the leases, so that others go on at once."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        self._pool.shutdown(wait=True)
        self._give_back()

    def _give_back(self) -> None:
        """What cannot be given back, for an outage or in time, lapses by itself."""
        until = self._clock.monotonic() + _GIVING_BACK_SECONDS
        for record_id in self._places:
            if self._clock.monotonic() > until:
                return
            try:
                record = self._errand.get(record_id)
                if record is not None and record.lease is not None and record.lease.owner == self._owner:
                    self._errand.held(record, None)
            except StorageUnavailable:
                return
            except (LeaseLost, StorageCorrupt):
                continue

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._stopping:
                    return
                scans = self._scan_at <= self._clock.monotonic()
                if scans:
                    self._scan_at = self._clock.monotonic() + self._poll
            if scans:
                self._scan()
            with self._changed:
                self._dispatch()
                pause = self._pause()
                if not self._stopping and pause > 0:
                    self._changed.wait(pause)

    def _scan(self) -> None:
        try:
            records = self._errand.unfinished()
        except StorageUnavailable:
            return
        except Exception:
            log.exception("driver_scan_failed", driver=self._name)
            return
        now, moment = self._clock.now(), self._clock.monotonic()
        with self._changed:
            for record in records:
                if record.id not in self._places and _is_free(record, self._owner, now):
                    self._places[record.id] = _Place(record.id, moment)

    def _dispatch(self) -> None:
        moment = self._clock.monotonic()
        for place in list(self._places.values()):
            if place.running is None and place.due <= moment and not self._stopping:
                place.running = self._pool.submit(self._step, place)

    def _pause(self) -> float:
        dues = [place.due for place in self._places.values() if place.running is None]
        return min([self._scan_at, *dues]) - self._clock.monotonic()

    def _step(self, place: _Place[D]) -> None:
        wait: float | None = self._poll
        try:
            wait = self._taken_and_stepped(place.record_id)
        except LeaseLost:
            wait = 0.0
        except StorageUnavailable:
            wait = self._poll
        except Exception:
            log.exception("driver_step_failed", driver=self._name, record=place.record_id)
            wait = self._lease.total_seconds()
        with self._changed:
            place.running = None
            if wait is None:
                self._places.pop(place.record_id, None)
            else:
                place.due = -math.inf if place.woken else self._clock.monotonic() + wait
            place.woken = False
            self._changed.notify_all()

    def _taken_and_stepped(self, record_id: str) -> float | None:
        """Takes or keeps the lease, then makes the step. A lease is written again when half of it is over."""
        record, now = self._errand.get(record_id), self._clock.now()
        if record is None or not _is_free(record, self._owner, now):
            return None
        held = record.lease
        if held is None or held.owner != self._owner or held.expires_at - now < self._lease / 2:
            record = self._errand.held(record, Lease(self._owner, now + self._lease))
        return self._errand.step(record)


def _is_free(record: Driven, owner: str, now: datetime) -> bool:
    lease = record.lease
    return lease is None or lease.owner == owner or lease.expires_at <= now
