"""The clock by which leases are made and judged."""

from datetime import timedelta

from tests.support.factories import NOW
from utilities.clock import SharedClock, SystemClock

HOUR = timedelta(hours=1)


class Settable:
    """A system clock that can be set, beside a steady one that cannot."""

    def __init__(self) -> None:
        self.wall = NOW
        self.steady = 100.0

    def now(self) -> object:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def pass_by(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.steady += seconds


def test_the_servers_time_is_everybodys() -> None:
    """After a calibration the clock shows the server's time and goes on by the steady clock, whatever the system
    clock says and however it is set meanwhile."""
    system = Settable()
    clock = SharedClock(lambda: NOW + HOUR, system)  # type: ignore[arg-type]
    assert clock.now() == NOW
    clock.calibrate()
    assert clock.now() == NOW + HOUR
    system.wall += 5 * HOUR
    assert clock.now() == NOW + HOUR
    system.pass_by(90.0)
    assert clock.now() == NOW + HOUR + timedelta(seconds=90)


def test_half_of_the_round_trip_is_the_networks() -> None:
    """The server's time is taken for that of the middle of the round trip."""
    system = Settable()

    def slow() -> object:
        system.pass_by(2.0)
        return NOW

    clock = SharedClock(slow, system)  # type: ignore[arg-type]
    clock.calibrate()
    assert clock.now() == NOW + timedelta(seconds=1)


def test_without_a_server_the_system_clock_is_the_shared_one() -> None:
    """A back-end without a clock of its own leaves this machine's."""
    system = Settable()
    clock = SharedClock(lambda: None, system)  # type: ignore[arg-type]
    clock.calibrate()
    system.wall += HOUR
    assert clock.now() == NOW + HOUR


def test_the_steady_clock_does_not_go_back() -> None:
    """Two looks in a row never show less."""
    clock = SystemClock()
    assert clock.monotonic() <= clock.monotonic()
