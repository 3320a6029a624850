"""What of a booked limit may be given back when a call has used less than was booked for it. Pure.

If a bucket had been filled with D less, it would hold D less until it is empty: a bucket that holds only h just before
it is filled again holds min(D, h) less from then on. So what may be given back is what was not used, but no more than
the bucket has held at any booking since; then it holds exactly what it would hold had the use been known beforehand.
"""

from dataclasses import dataclass, field

from engine.llm import JsonObject

_MOST = 32


@dataclass(slots=True)
class Bookings:
    """`last` is the number of the last booking; `lows` are (number, what the bucket held just before that booking), of
    those bookings only that have found less than all later ones."""

    last: int
    lows: list[tuple[int, float]] = field(default_factory=list)

    def booked(self, held: float) -> int:
        """The number of a new booking by which the bucket is filled."""
        self.last += 1
        lower = [low for low in self.lows if low[1] < held]
        self.lows = [*lower, (self.last, held)]
        if len(self.lows) > _MOST:
            self._forget_one()
        return self.last

    def give_back(self, number: int, units: float) -> float:
        """How much less the bucket holds now, since that booking used so many units less than it was for."""
        later = [low for low in self.lows if low[0] > number]
        returned = min([units, *(held for _, held in later)])
        lowered = [(at, held - returned) for at, held in later]
        least = min((held for _, held in lowered), default=float("inf"))
        self.lows = [low for low in self.lows if low[0] <= number and low[1] < least] + lowered
        return returned

    def close(self) -> None:
        """Nothing that was booked so far is given back any more."""
        self.booked(0.0)

    def as_document(self) -> JsonObject:
        return {"booked": self.last, "lows": [list(low) for low in self.lows]}

    def _forget_one(self) -> None:
        """The oldest two become one that allows no more than either."""
        (_, least), (number, _), *others = self.lows
        self.lows = [(number, least), *others]


def bookings_of(document: JsonObject, now: float) -> Bookings:
    """Numbers begin with the microseconds since 1970, so that bookings which were forgotten have lower ones."""
    lows = [(int(number), float(held)) for number, held in document.get("lows", ())]
    return Bookings(int(document.get("booked", now * 1e6)), lows)
