"""Threads with an event loop each, on which consumers run."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from typing import Any, Protocol

import structlog

from engine.jobs.consumer import Tools
from engine.jobs.handler import JobHandler
from engine.jobs.held import Heartbeat

_PROBE_SECONDS = 0.5
_SMOOTHING = 0.3

log = structlog.get_logger(__name__)


class LoopHandler(JobHandler, Protocol):
    """A handler bound to one event loop, closed with it."""

    async def aclose(self) -> None: ...


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed: less CPU per call."""
    try:
        import uvloop  # noqa: PLC0415 - absent on some platforms, and slow to import
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class LoopThread:
    """One event loop in a thread of its own, with the tools its consumers share.

    `lag` is how late, in seconds, the loop wakes up by a moving average: a loop that has more than it can do.
    """

    def __init__(self, name: str, make_tools: Callable[[], tuple[Tools, LoopHandler, Heartbeat]]) -> None:
        self.name = name
        self.consumers = 0
        self.lag = 0.0
        self._make_tools = make_tools
        self._loop = new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self.tools: Tools
        self.submit(self._open()).result()

    def submit(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        """Run a coroutine on the loop; from any thread but its own."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Callable[[], None]) -> None:
        """Run a function on the loop, soon; from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)

    def close(self, timeout: float) -> None:
        """End the loop and all that still runs on it, within `timeout` seconds; what hangs longer is left behind.

        Repeating is harmless.
        """
        if self._loop.is_closed():
            return
        closing = self.submit(self._close())
        _, hanging = wait([closing], timeout)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout)
        if hanging:
            log.warning("loop_hangs", thread=self.name)
        else:
            self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _open(self) -> None:
        self.tools, self._handler, heartbeat = self._make_tools()
        self._background = [asyncio.create_task(heartbeat.run()), asyncio.create_task(self._measure())]
        for task in self._background:
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            log.error("loop_broke", thread=self.name, error=repr(task.exception()))

    async def _close(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._handler.aclose()

    async def _measure(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            asleep_at = clock()
            await asyncio.sleep(_PROBE_SECONDS)
            late = max(0.0, clock() - asleep_at - _PROBE_SECONDS)
            self.lag += _SMOOTHING * (late - self.lag)
