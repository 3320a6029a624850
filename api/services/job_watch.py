"""Waiting for jobs on an event loop: told by whoever works in this process, however many wait."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from engine.jobs.signals import JobSignals


class Watched:
    """One who waits for a job. `left` tells that he does so no longer."""

    def __init__(self) -> None:
        self.left = False
        self._told = asyncio.Event()

    def tell(self) -> None:
        """The job may have changed."""
        self._told.set()

    def leave(self) -> None:
        self.left = True
        self._told.set()

    async def within(self, seconds: float) -> bool:
        """Whether anything was told since the last time, at the latest after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._told.wait()
        except TimeoutError:
            return False
        self._told.clear()
        return True


class JobWatch:
    """For one event loop. What other replicas do to a job is not told: look now and then."""

    def __init__(self, signals: JobSignals) -> None:
        self._watched: dict[str, list[Watched]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        signals.on_settled(self._on_settled)

    @contextmanager
    def on(self, job_id: str) -> Iterator[Watched]:
        """Whatever is told from here on is not missed."""
        self._loop = asyncio.get_running_loop()
        watched = Watched()
        self._watched.setdefault(job_id, []).append(watched)
        try:
            yield watched
        finally:
            self._watched[job_id].remove(watched)
            if not self._watched[job_id]:
                del self._watched[job_id]

    def _on_settled(self, job_id: str) -> None:
        if job_id in self._watched and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, job_id)

    def _tell(self, job_id: str) -> None:
        for watched in self._watched.get(job_id, ()):
            watched.tell()
