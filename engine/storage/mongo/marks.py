"""Which counter buckets are being written to: what makes cached counts exact without transactions.

Every job is counted in one bucket of its client, for good. A bucket's document in `counters` holds

    clientId, size    how many places for jobs were given away, in steps
    version           rises whenever a process begins or ends to write to the bucket's jobs
    writers           which processes may be writing, each since when by the server's clock
    counted, used     {version, at, rows}: what a recount of jobs and of calls found (see buckets.py)

A process marks a bucket before its first write to a job in it, and takes the mark away when it has been idle; in
between, writes cost nothing extra. A count made while nobody had marked the bucket holds as long as the version stays
what it was. A mark of a process that died counts as gone after DEAD_AFTER; a living one renews its marks long before.
"""

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from pymongo import ReturnDocument
from pymongo.results import UpdateResult

from engine.errors import StorageError
from engine.storage.mongo.connection import FOLLOWED, Documents
from engine.storage.mongo.faults import guarded
from engine.storage.mongo.turns import Turns
from utilities.clock import steady_seconds
from utilities.ids import ObjectIds

FULL = 4000
SLICE = 1000
"""A bucket takes no more steps once FULL places are given away; a step is at most SLICE, so it ends below 5,000."""
_STEP = 200

DEAD_AFTER = timedelta(minutes=10)
_RENEW_SECONDS = 180.0
_DOUBT_SECONDS = 60.0
"""How long a write whose outcome is unknown keeps its buckets marked."""
_IDLE_SECONDS = 5.0


@dataclass(slots=True)
class _Mark:
    since: float
    used_at: float
    users: int = 0
    held_until: float = 0.0


@dataclass(slots=True)
class _Room:
    bucket: str
    left: int


class Marks:
    """This process's marks. Thread-safe; round trips take turns, so that marks are set and taken away in the order
    decided here. Ending a write waits for no round trip."""

    def __init__(self, counters: Documents, clock: Callable[[], float] = steady_seconds) -> None:
        self._counters = counters.with_options(write_concern=FOLLOWED)
        self._clock = clock
        self._turns = Turns()
        self._lock = threading.Lock()
        self._ids = ObjectIds()
        self._writer = uuid.uuid4().hex
        self._marks: dict[str, _Mark] = {}
        self._rooms: dict[str, _Room] = {}
        self._tidied_at = clock()

    def place(self, client_id: str, count: int) -> str:
        """The bucket for `count` new jobs (at most SLICE) of a client."""
        with self._turns.taken():
            room = self._rooms.get(client_id)
            if room is None or room.left < count:
                room = self._rooms[client_id] = self._new_room(client_id, max(count, _STEP))
            room.left -= count
            return room.bucket

    @contextmanager
    def writing(self, buckets: Iterable[str]) -> Iterator[None]:
        """Around every write to jobs that changes what is counted."""
        names = set(buckets)
        self._enter(names)
        doubtful = True
        try:
            yield
            doubtful = False
        finally:
            self._leave(names, doubtful=doubtful)

    def end_idle(self, idle_seconds: float = 0.0) -> None:
        """Take away the marks of buckets that nothing here has written to for so long. Raises StorageError."""
        with self._turns.taken():
            now = self._clock()
            self._tidied_at = now
            idle = [name for name, mark in self._marks.items() if _is_idle(mark, now, idle_seconds)]
            if idle:
                self._unmark(idle)

    def _new_room(self, client_id: str, count: int) -> _Room:
        query = {"clientId": client_id, "size": {"$lt": FULL}}
        update = {
            "$inc": {"size": count, "version": 1},
            "$currentDate": {f"writers.{self._writer}": True},
            "$setOnInsert": {"_id": self._ids.new()},
        }
        asked_at = self._clock()
        found = guarded(
            lambda: self._counters.find_one_and_update(
                query, update, projection={"_id": 1}, upsert=True, return_document=ReturnDocument.AFTER
            )
        )
        bucket = str((found or {})["_id"])
        self._noted(bucket, asked_at)
        return _Room(bucket, count)

    def _enter(self, names: set[str]) -> None:
        if self._clock() - self._tidied_at > _IDLE_SECONDS:
            self.end_idle(_IDLE_SECONDS)
        with self._turns.taken():
            now = self._clock()
            self._mark([name for name in names if self._is_stale(name, now)], now)
            with self._lock:
                for name in names:
                    self._marks[name].users += 1

    def _leave(self, names: set[str], *, doubtful: bool) -> None:
        with self._lock:
            now = self._clock()
            for name in names:
                mark = self._marks[name]
                mark.users -= 1
                mark.used_at = now
                if doubtful:
                    mark.held_until = now + _DOUBT_SECONDS

    def _is_stale(self, name: str, now: float) -> bool:
        mark = self._marks.get(name)
        return mark is None or now - mark.since > _RENEW_SECONDS

    def _mark(self, names: list[str], now: float) -> None:
        if not names:
            return
        update = {"$currentDate": {f"writers.{self._writer}": True}, "$inc": {"version": 1}}
        self._update(names, update)
        for name in names:
            self._noted(name, now)

    def _unmark(self, names: list[str]) -> None:
        update = {"$unset": {f"writers.{self._writer}": ""}, "$inc": {"version": 1}}
        for name in names:
            del self._marks[name]
        try:
            self._update(names, update)
        except StorageError:
            self._rename()
            raise

    def _rename(self) -> None:
        """An update that may still arrive must not take later marks away: those get another name."""
        self._writer = uuid.uuid4().hex
        for mark in self._marks.values():
            mark.since = float("-inf")

    def _update(self, names: list[str], update: dict[str, object]) -> UpdateResult:
        return guarded(lambda: self._counters.update_many({"_id": {"$in": names}}, update))

    def _noted(self, name: str, now: float) -> None:
        mark = self._marks.setdefault(name, _Mark(since=now, used_at=now))
        mark.since = now
        mark.used_at = now


def _is_idle(mark: _Mark, now: float, idle_seconds: float) -> bool:
    return mark.users == 0 and mark.held_until <= now and now - mark.used_at >= idle_seconds
