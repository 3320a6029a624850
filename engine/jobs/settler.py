"""Writes what attempts ended in: in groups, and again until the database has taken it."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import NamedTuple, TypeVar

import structlog

from engine.errors import StorageUnavailable
from engine.jobs.job import Attempt
from engine.jobs.outcome import Settlement
from engine.jobs.queue import JobQueue
from utilities.backoff import full_jitter
from utilities.clock import Clock
from utilities.hop import Hop

_GATHER_SECONDS = 0.004
_LARGEST_GROUP = 200
_BASE = timedelta(milliseconds=100)
_CAP = timedelta(seconds=2)

T = TypeVar("T")
log = structlog.get_logger(__name__)


class _Waiting(NamedTuple):
    settlement: Settlement
    written: asyncio.Future[bool]


class Settler:
    """Groups the settlements of one event loop: what ends within a few milliseconds shares one write.

    Where the last one was alone, the next one is not kept waiting for company: on a quiet loop somebody may be waiting
    for the answer, on a busy one what ends during a write makes the next group.

    While the database is away a settlement waits and is written again: the paid result is kept, and the fencing
    token decides whether it is still wanted.
    """

    def __init__(self, queue: JobQueue, hop: Hop, clock: Clock, rng: random.Random) -> None:
        self._queue = queue
        self._hop = hop
        self._clock = clock
        self._rng = rng
        self._waiting: list[_Waiting] = []
        self._flushing: asyncio.Task[None] | None = None
        self._last_group = 0

    async def settle(self, settlement: Settlement) -> bool:
        """Whether the outcome was written; False where the job had been taken away. Returns when that is durable.

        Raises what the storage raises for an outcome that cannot be stored; outages are waited out.
        """
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(settlement, written))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        return await written

    async def book(self, job_id: str, attempt: Attempt) -> bool:
        """Put a late attempt on the ledger."""
        return await self._patiently(lambda: self._hop(self._queue.book, job_id, attempt))

    async def _flush(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(_GATHER_SECONDS if self._last_group > 1 else 0)
                group, self._waiting = self._waiting[:_LARGEST_GROUP], self._waiting[_LARGEST_GROUP:]
                self._last_group = len(group)
                await self._answer(group)
        finally:
            self._flushing = None
            for _, written in self._waiting:
                written.cancel()
            self._waiting = []

    async def _answer(self, group: Sequence[_Waiting]) -> None:
        """Writes a group and tells everyone; a group that cannot be stored is written one by one."""
        settlements = [settlement for settlement, _ in group]
        [answer] = await asyncio.gather(self._write(settlements), return_exceptions=True)
        if isinstance(answer, BaseException) and len(group) > 1:
            for one in group:
                await self._answer([one])
            return
        for place, (_, written) in enumerate(group):
            if written.done():
                continue
            if isinstance(answer, BaseException):
                written.set_exception(answer)
            else:
                written.set_result(answer[place])

    async def _write(self, settlements: Sequence[Settlement]) -> list[bool]:
        return await self._patiently(lambda: self._hop(self._queue.settle, settlements, self._clock.now()))

    async def _patiently(self, write: Callable[[], Awaitable[T]]) -> T:
        failures = 0
        while True:
            try:
                return await write()
            except StorageUnavailable as error:
                failures += 1
                if failures == 1:
                    log.warning("settlement_waits", reason=str(error))
                await asyncio.sleep(full_jitter(failures, base=_BASE, cap=_CAP, rng=self._rng).total_seconds())
