"""Time as a port: everything else receives `now`; only this file asks the system."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Where time comes from: `now`, aware UTC in whole milliseconds; `monotonic`, seconds that never go back."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...


def to_milliseconds(instant: datetime) -> datetime:
    """`instant` cut to whole milliseconds: what every back-end stores, so that what is read equals what was written."""
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)


class SystemClock:
    """This machine's clock."""

    def now(self) -> datetime:
        return to_milliseconds(datetime.now(UTC))

    def monotonic(self) -> float:
        return time.monotonic()


class SharedClock:
    """The clock all replicas agree on: this machine's steady clock, set by the database server's time.

    `read` answers the server's instant, or None where the back-end offers none; then the system clock is the shared
    one. `calibrate` asks once and halves the round trip, as NTP does; between calibrations the steady clock advances.
    """

    def __init__(self, read: Callable[[], datetime | None]) -> None:
        self._read = read
        self._offset = timedelta(0)

    def calibrate(self) -> timedelta:
        """Ask the server for its time; returns the offset to the system clock. Errors of the server pass through."""
        before = datetime.now(UTC)
        server = self._read()
        after = datetime.now(UTC)
        if server is not None:
            self._offset = server - (before + (after - before) / 2)
        return self._offset

    def now(self) -> datetime:
        return to_milliseconds(datetime.now(UTC) + self._offset)

    def monotonic(self) -> float:
        return time.monotonic()
