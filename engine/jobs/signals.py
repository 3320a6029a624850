"""What happens in this process, told to whoever works here: new jobs wake consumers, changed jobs drop their calls,
and attempts that have ended are told to whoever waits for them."""

import threading
from collections.abc import Callable, Sequence

from engine.jobs.job import Job

OnReady = Callable[[Sequence[Job]], None]
OnFenced = Callable[[str], None]
OnSettled = Callable[[str], None]


class JobSignals:
    """A bulletin board between the services that write jobs and the consumers that run them, in one process.

    Callbacks run in the thread that tells, so they only hand over to their own loop. Nothing depends on a signal for
    being correct: other replicas and lost signals are covered by polling and by the fencing token.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready: tuple[OnReady, ...] = ()
        self._fenced: tuple[OnFenced, ...] = ()
        self._settled: tuple[OnSettled, ...] = ()

    def subscribe(self, on_ready: OnReady, on_fenced: OnFenced) -> Callable[[], None]:
        """Start to listen; the answer ends it."""
        with self._lock:
            self._ready += (on_ready,)
            self._fenced += (on_fenced,)

        def unsubscribe() -> None:
            with self._lock:
                self._ready = tuple(callback for callback in self._ready if callback is not on_ready)
                self._fenced = tuple(callback for callback in self._fenced if callback is not on_fenced)

        return unsubscribe

    def on_settled(self, callback: OnSettled) -> Callable[[], None]:
        """Be told the ids of jobs that may have ended or gone back; the answer ends it."""
        with self._lock:
            self._settled += (callback,)

        def unsubscribe() -> None:
            with self._lock:
                self._settled = tuple(each for each in self._settled if each is not callback)

        return unsubscribe

    def ready(self, jobs: Sequence[Job]) -> None:
        """These jobs may be claimed now."""
        for callback in self._ready:
            callback(jobs)

    def fenced(self, job_id: str) -> None:
        """Whoever holds this job has lost it: drop the call."""
        for callback in self._fenced:
            callback(job_id)

    def settled(self, job_id: str) -> None:
        """An attempt at this job has ended in this process, and what it came to is durable or never will be."""
        for callback in self._settled:
            callback(job_id)
