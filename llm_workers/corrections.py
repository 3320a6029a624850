"""What calls used more, or less, than was booked for them, until it is told to the other replicas."""

import threading
from collections import deque
from dataclasses import dataclass, field

_CREDIT_CALLS = 4
_MOST = 500


@dataclass(frozen=True, slots=True)
class Booked:
    """`tokens` of a call that were booked before it, by that `number`; None where tokens are not limited."""

    tokens: int
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Correction:
    """`excess` is how many tokens calls have used beyond their estimates. `unused` are those that others have not
    used, by the number of their booking."""

    excess: int = 0
    unused: tuple[tuple[int, int], ...] = ()


@dataclass(slots=True)
class Corrections:
    """Safe to use from several threads. What could not be given back is set against later excess, up to a few calls'
    worth."""

    _excess: int = 0
    _unused: "deque[tuple[int, int]]" = field(default_factory=lambda: deque(maxlen=_MOST))
    _size: int = 1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ended(self, booked: Booked, used: int) -> None:
        """A call has used so many tokens."""
        with self._lock:
            self._size = used or self._size
            if booked.number is not None and used < booked.tokens:
                self._unused.append((booked.number, booked.tokens - used))
            else:
                self._add(used - booked.tokens)

    def take(self) -> Correction:
        """What is to be told."""
        with self._lock:
            taken = Correction(max(self._excess, 0), tuple(self._unused))
            self._excess -= taken.excess
            self._unused.clear()
            return taken

    def kept(self, tokens: float) -> None:
        """So many of the unused tokens that were told could not be given back."""
        with self._lock:
            self._add(-int(tokens))

    def not_told(self, correction: Correction) -> None:
        """It may have been told: what was unused is not told again, since that could be given back twice."""
        with self._lock:
            self._excess += correction.excess

    def _add(self, excess: int) -> None:
        self._excess = max(self._excess + excess, -_CREDIT_CALLS * self._size)
