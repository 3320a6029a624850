"""The crossing from asynchronous routes to synchronous storage."""

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from engine.errors import MetasyncError, StorageUnavailable
from engine.jobs.job import Job
from engine.jobs.queue import JobQueue

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 8
MOST_WAITING = 4096
WINDOW_SECONDS = 0.001
MOST_JOBS_PER_WRITE = 10_000


class Gate:
    """Runs synchronous work for one event loop; implements utilities.hop.Hop.

    At most `THREADS` calls run at a time; beyond `MOST_WAITING` waiting ones a call is refused with StorageUnavailable,
    so that a database which hangs does not fill the memory. Inserts go through one thread of their own.
    """

    def __init__(self, queue: JobQueue) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="api-storage")
        self._waiting = 0
        self._writer = GroupWriter(queue)

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`function`'s result; its exceptions pass through. Log context goes along."""
        if self._waiting >= MOST_WAITING:
            raise StorageUnavailable("too many requests wait for the database")
        context = contextvars.copy_context()
        self._waiting += 1
        call = asyncio.get_running_loop().run_in_executor(self._threads, lambda: context.run(function, *args, **kwargs))
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


class GroupWriter:
    """Inserts that arrive within a millisecond, or while a write is under way, share the next write and its commit."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="api-inserts")
        self._inserts: list[_Insert] = []
        self._flushing: asyncio.Task[None] | None = None

    async def insert(self, jobs: Sequence[Job]) -> None:
        waiting = _Insert(jobs, asyncio.get_running_loop().create_future())
        self._inserts.append(waiting)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await waiting.done

    async def _flush(self) -> None:
        await asyncio.sleep(WINDOW_SECONDS)
        while self._inserts:
            await self._write(self._next_group())
        self._flushing = None

    def _next_group(self) -> list[_Insert]:
        count, jobs = 0, 0
        while count < len(self._inserts) and (count == 0 or jobs < MOST_JOBS_PER_WRITE):
            jobs += len(self._inserts[count].jobs)
            count += 1
        group, self._inserts = self._inserts[:count], self._inserts[count:]
        return group

    async def _write(self, group: list[_Insert]) -> None:
        """Writes a group; when it fails for another reason than the database, one by one, so that each gets its own."""
        error = await self._attempt([job for insert in group for job in insert.jobs])
        if error is None or isinstance(error, MetasyncError) or len(group) == 1:
            for insert in group:
                _finish(insert, error)
            return
        for insert in group:
            _finish(insert, await self._attempt(insert.jobs))

    async def _attempt(self, jobs: Sequence[Job]) -> Exception | None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._queue.insert, jobs)
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
