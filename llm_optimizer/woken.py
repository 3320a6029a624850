"""A driver whose records go on when a job that they wait for has ended in this process."""

from collections.abc import Callable
from typing import Generic, TypeVar

from engine.driving import Driven, Driver
from engine.jobs.signals import JobSignals
from llm_optimizer.run_tools import Watch

D = TypeVar("D", bound=Driven)


class Woken(Generic[D]):
    """Drives what nobody else drives, from `start` to `close`. `release` is called when the last step has ended."""

    def __init__(
        self, driver: Driver[D], watch: Watch, signals: JobSignals, release: Callable[[], None] = lambda: None
    ) -> None:
        self._driver = driver
        self._watch = watch
        self._signals = signals
        self._release = release
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        self._unsubscribe = self._signals.on_settled(self._on_settled)
        self._driver.start()

    def wake(self, record_id: str | None = None) -> None:
        """The stored record is new or has changed: look at it now. Returns at once."""
        self._driver.wake(record_id)

    def close(self) -> None:
        """Ends when the steps under way have ended."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._driver.close()
        self._release()

    def _on_settled(self, job_id: str) -> None:
        record_id = self._watch.tell(job_id)
        if record_id is not None:
            self._driver.wake(record_id)
