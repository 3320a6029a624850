"""The crossing from asynchronous routes to synchronous storage."""

import asyncio
import contextvars
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from engine.errors import StorageError, StorageUnavailable
from engine.jobs.job import Job
from engine.jobs.queue import JobQueue

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 8
MOST_WAITING = 4096
WINDOW_SECONDS = 0.001
MOST_JOBS_PER_WRITE = 10_000
NOTICED_SECONDS = 4.5
"""Whoever would hear of an outage later than this is told of the one that was found while he waited."""


class Outages:
    """The latest outage that a call ran into. From any thread."""

    def __init__(self) -> None:
        self._latest: tuple[StorageUnavailable, float, float] | None = None

    def found(self, error: StorageUnavailable, started_at: float) -> None:
        now = time.monotonic()
        self._latest = error, now, now - started_at

    def check(self, asked_at: float) -> None:
        """Raises StorageUnavailable where an outage was found since `asked_at`, and finding it once more, for as long
        as it took then, would take too long."""
        latest = self._latest
        if latest is None:
            return
        error, found_at, took = latest
        if found_at > asked_at and time.monotonic() + took - asked_at > NOTICED_SECONDS:
            raise StorageUnavailable(str(error), error.retry_after)


class Gate:
    """Runs synchronous work for one event loop; implements utilities.hop.Hop.

    At most `THREADS` calls run at a time; beyond `MOST_WAITING` waiting ones a call is refused with StorageUnavailable,
    so that a database which hangs does not fill the memory. Inserts go through one thread of their own.
    """

    def __init__(self, queue: JobQueue) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="api-storage")
        self._waiting = 0
        self._outages = Outages()
        self._writer = GroupWriter(queue)

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`function`'s result; its exceptions pass through. Log context goes along."""
        if self._waiting >= MOST_WAITING:
            raise StorageUnavailable("too many requests wait for the database")
        context = contextvars.copy_context()
        asked_at = time.monotonic()

        def work() -> T:
            self._outages.check(asked_at)
            started_at = time.monotonic()
            try:
                return context.run(function, *args, **kwargs)
            except StorageUnavailable as error:
                self._outages.found(error, started_at)
                raise

        self._waiting += 1
        call = asyncio.get_running_loop().run_in_executor(self._threads, work)
        call.add_done_callback(self._done)
        return await call

    def _done(self, _call: "asyncio.Future[T]") -> None:
        self._waiting -= 1

    async def insert(self, jobs: Sequence[Job]) -> None:
        """Stores new jobs, durable on return; see JobQueue.insert. Shares one write with whoever inserts meanwhile."""
        await self._writer.insert(jobs)

    def close(self) -> None:
        """Waits for the calls under way and ends the threads. For the time after the last request."""
        self._writer.close()
        self._threads.shutdown(wait=True)


@dataclass(slots=True)
class _Insert:
    jobs: Sequence[Job]
    done: "asyncio.Future[None]"
    asked_at: float


class GroupWriter:
    """Inserts that arrive together, or while a write is under way, share the next write and its commit.

    While they do, each first write waits a millisecond for others; where the last one was alone it does not.
    """

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="api-inserts")
        self._outages = Outages()
        self._inserts: list[_Insert] = []
        self._flushing: asyncio.Task[None] | None = None
        self._last_group = 0

    async def insert(self, jobs: Sequence[Job]) -> None:
        waiting = _Insert(jobs, asyncio.get_running_loop().create_future(), time.monotonic())
        self._inserts.append(waiting)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await waiting.done

    async def _flush(self) -> None:
        await asyncio.sleep(WINDOW_SECONDS if self._last_group > 1 else 0)
        while self._inserts:
            await self._write(self._next_group())
        self._flushing = None

    def _next_group(self) -> list[_Insert]:
        count, jobs = 0, 0
        while count < len(self._inserts) and (count == 0 or jobs < MOST_JOBS_PER_WRITE):
            jobs += len(self._inserts[count].jobs)
            count += 1
        group, self._inserts = self._inserts[:count], self._inserts[count:]
        self._last_group = len(group)
        return group

    async def _write(self, group: list[_Insert]) -> None:
        """Writes a group; when it fails for another reason than the database, one by one, so that each gets its own."""
        error = await self._attempt([job for insert in group for job in insert.jobs], group[0].asked_at)
        if error is None or isinstance(error, StorageError) or len(group) == 1:
            for insert in group:
                _finish(insert, error)
            return
        for insert in group:
            _finish(insert, await self._attempt(insert.jobs, insert.asked_at))

    async def _attempt(self, jobs: Sequence[Job], asked_at: float) -> Exception | None:
        started_at = time.monotonic()
        try:
            self._outages.check(asked_at)
        except StorageUnavailable as error:
            return error
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._queue.insert, jobs)
        except StorageUnavailable as error:
            self._outages.found(error, started_at)
            return error
        except Exception as error:  # noqa: BLE001 - handed to whoever awaits the insert
            return error
        return None

    def close(self) -> None:
        self._thread.shutdown(wait=True)


def _finish(insert: _Insert, error: Exception | None) -> None:
    if insert.done.done():
        return
    if error is None:
        insert.done.set_result(None)
    else:
        insert.done.set_exception(error)
