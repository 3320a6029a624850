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


def steady_seconds() -> float:
    """Seconds that never go back and also pass while the machine is suspended, where the system can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class SystemClock:
    """This machine's clock."""

    def now(self) -> datetime:
        return to_milliseconds(datetime.now(UTC))

    def monotonic(self) -> float:
        return steady_seconds()


class SharedClock:
    """The clock all replicas agree on: this machine's steady clock, set by the database server's time.

    `read` answers the server's instant, or None where the back-end offers none; then the system clock is the shared
    one. `calibrate` asks once and halves the round trip, as NTP does; between calibrations the steady clock advances,
    so that a system clock that is set anew makes no lease run out.
    """

    def __init__(self, read: Callable[[], datetime | None], system: Clock | None = None) -> None:
        self._read = read
        self._system = system or SystemClock()
        self._set: tuple[datetime, float] | None = None

    def calibrate(self) -> None:
        """Ask the server for its time. Errors of the server pass through."""
        before = self._system.monotonic()
        server = self._read()
        after = self._system.monotonic()
        if server is not None:
            self._set = server, (before + after) / 2

    def now(self) -> datetime:
        if self._set is None:
            return self._system.now()
        instant, at = self._set
        return to_milliseconds(instant + timedelta(seconds=self._system.monotonic() - at))

    def monotonic(self) -> float:
        return self._system.monotonic()
