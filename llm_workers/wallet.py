"""A purse as this process sees it: what it holds of it, and what its calls have taken."""

import asyncio
import threading
from collections import deque
from enum import StrEnum

from engine.jobs.queue import Hold
from engine.purses import Ask, Grant, Purse

_CALLS_AHEAD = 64
_MOST_AHEAD = 8192
_OFTEN_SECONDS = 2.0
"""A part is taken for so many calls at a time, for twice as many where it did not last so long: on MongoDB, asking what
has been spent costs the server some 20 ms while jobs are being settled."""


class Shut(StrEnum):
    """Why nothing is claimed: `reached` until another limit or period, `reserved` until calls in flight have ended."""

    REACHED = "reached"
    RESERVED = "reserved"


class Wallet:
    """Safe to use from several threads. Amounts are units of pricing.QUANTUM, instants seconds of the steady clock.

    A job's calls are in flight (at their estimates) or made (at their costs) until its attempt is durable, when they
    are settled: then the usage has them.
    """

    def __init__(self, purse: Purse) -> None:
        self.purse = purse
        self.shut: Shut | None = None
        self.asking = threading.Lock()
        self.asked_at = float("-inf")
        self.used_at = float("-inf")
        self.left = 1
        self.in_flight = 0
        self.busy = False
        self._valid_until = float("-inf")
        self._lock = threading.Lock()
        self._held = 0
        self._used = 0
        self._settled = 0
        self._made: dict[Hold, int] = {}
        self._largest = 1
        self._ahead = _CALLS_AHEAD
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

    @property
    def holds(self) -> bool:
        """Whether other replicas see anything held here, or something settled is still to be told."""
        return bool(self._held or self._used or self._settled)

    @property
    def is_idle(self) -> bool:
        return not (self.in_flight or self._made)

    def is_stale(self, now: float, ahead: float = 0.0) -> bool:
        """Whether what is held lapses within `ahead` seconds, or has lapsed."""
        return now + ahead >= self._valid_until

    def may_ask(self, now: float, again: float) -> bool:
        """Whether asking the others is worth its while: not for what nobody has, more often than every `again`."""
        if self.shut is Shut.REACHED:
            return False
        return self.left > 0 or self.is_stale(now) or now - self.asked_at >= again

    def adopt(self, purse: Purse) -> None:
        """Another limit of the same period: asked for anew."""
        with self._lock:
            self.purse = purse
            self.shut = None
            self._valid_until = float("-inf")

    def take(self, units: int, now: float, *, anyway: bool = False) -> bool:
        """Reserves for a call that may cost so much; the last may take more than there is. `anyway`: in any case."""
        with self._lock:
            self.used_at = now
            self._largest = max(units, 1)
            if not anyway and (self.shut is Shut.REACHED or now >= self._valid_until or self._free <= 0):
                return False
            self._used += units
            self.in_flight += 1
        self.wake()
        return True

    def cost(self, hold: Hold, estimate: int, units: int) -> None:
        """A call has ended and cost so much; it stays used until its attempt is durable."""
        with self._lock:
            self.in_flight -= 1
            self._used += units - estimate
            if units:
                self._made[hold] = self._made.get(hold, 0) + units
        self.wake()

    def settle(self, hold: Hold) -> None:
        """The attempt is over, its calls are in the usage."""
        with self._lock:
            units = self._made.pop(hold, 0)
            self._used -= units
            self._settled += units

    def ask(self, replica: str, until: float, now: float, *, give_back: bool = False) -> Ask:
        """What to tell and ask the others. With `give_back` nothing is kept that no call needs.

        Nor where all have overdrawn: what each of them keeps in hand then is what the others wait for.
        """
        with self._lock:
            often = now - self.asked_at < _OFTEN_SECONDS
            self._ahead = min(self._ahead * 2, _MOST_AHEAD) if often else max(self._ahead // 2, _CALLS_AHEAD)
            self.asked_at = now
            if give_back or self.left < 0:
                self._held = self._used + self._settled
            keep = max(self._held - self._settled, self._used)
            wanted = 0 if give_back else max(self._ahead * self._largest - (keep - self._used), 0)
            return Ask(
                replica=replica, until=until, settled=self._settled, keep=keep, wanted=wanted, least=self._largest
            )

    def learn(self, ask: Ask, grant: Grant, *, valid_until: float) -> None:
        """The answer to what was asked. What was settled meanwhile is told next time."""
        with self._lock:
            self._settled -= ask.settled
            self._held = grant.held
            self.left = grant.left
            self._valid_until = valid_until
            if grant.reached:
                self.shut = Shut.REACHED
            elif self.shut is Shut.REACHED or self._free > 0:
                self.shut = None
        self.wake()

    @property
    def has_room(self) -> bool:
        return self._free > 0

    @property
    def _free(self) -> int:
        """Less what all replicas together have overdrawn, so that one overdraft does not follow the other."""
        return self._held - self._settled - self._used + min(self.left, 0)

    async def room(self, seconds: float) -> None:
        """Returns when a call has ended, or after so long."""
        loop = asyncio.get_running_loop()
        waiting = loop, loop.create_future()
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout(seconds):
                await waiting[1]
        except TimeoutError:
            return
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def wake(self) -> None:
        """One of those who wait tries again where there may be room; all of them where nothing is in flight."""
        if self.in_flight == 0:
            while self._waiting:
                self._wake_one()
        elif self.has_room:
            self._wake_one()

    def _wake_one(self) -> None:
        try:
            loop, future = self._waiting.popleft()
        except IndexError:
            return
        if not loop.is_closed():
            loop.call_soon_threadsafe(_done, future)


def _done(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
