"""Taking turns at the database, so that an outage is told to all who wait as soon as it is told to one."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.errors import StorageUnavailable


class Turns:
    """A lock for round trips. Whoever waited while the one before found the database away is told the same, at once:
    each finding out for himself, one after the other, would take a multiple of the driver's time limit."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failed_at = float("-inf")
        self._failure: StorageUnavailable | None = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Holds the turn for the block. Raises StorageUnavailable where an outage was found since this was asked."""
        asked_at = self._clock()
        with self._lock:
            if self._failure is not None and self._failed_at > asked_at:
                raise StorageUnavailable(str(self._failure), self._failure.retry_after)
            try:
                yield
            except StorageUnavailable as error:
                self._failure, self._failed_at = error, self._clock()
                raise
