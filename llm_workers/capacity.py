"""What all replicas together may take of a model's limits: the policy over the document that they share. Pure.

Calls are spread evenly rather than let through in bursts: each gets an instant at which it may start. A bucket (the
generic cell rate algorithm, ITU-T I.371, in its virtual scheduling form) is kept as the one instant at which it will
have drained; a call of `units` may start when the bucket has room for them, and fills it by as much. With a burst of B
units and a rate of (L - B) per window, no window holds more than L of them, wherever it begins. A call of more than B
units waits until the bucket has been empty for as long as it takes to drain what is over B; then the same holds.

All instants here are seconds since 1970, by the clock that the replicas share.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.llm import JsonObject
from engine.records.values import Limits
from llm_workers.corrections import Correction
from llm_workers.refunds import Bookings, bookings_of

_BURST = 0.01
"""Of a limit, that may be used at once."""
_LARGEST_BURST = 0.5
HOLD_SECONDS = 15.0
"""For how long a replica that says nothing keeps its part of a concurrency."""


@dataclass(frozen=True, slots=True)
class Window:
    """`seconds` is the time that a limit is for; `slack` how late a call may start, or arrive, after its instant."""

    seconds: float = 60.0
    slack: float = 0.6

    @property
    def whole(self) -> float:
        return self.seconds + self.slack


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a replica wants: to start calls with these `estimates` of tokens, in this order.

    `correction` is how much more, and less, than their estimates calls before have used. `running` calls are under way
    here already, `wanted` is how many it could have at a time. Starts later than `horizon` seconds from now are of no
    use.
    """

    replica: str
    estimates: Sequence[int] = ()
    correction: Correction = field(default_factory=Correction)
    running: int = 0
    wanted: int = 0
    horizon: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """`starts` are the instants for the first calls asked for; the others had to start after the horizon. `bookings`
    are the numbers by which their tokens were booked, where tokens are limited. `kept` tokens that calls had not used
    could not be given back.

    `requests_free_at` and `tokens_free_at` say how far the limits are booked. No call is to be started while
    `concurrency` are running here; there may be more for a while, where others have come to share. None: no such limit.
    """

    starts: tuple[float, ...]
    bookings: tuple[int, ...] = ()
    kept: float = 0.0
    requests_free_at: float | None = None
    tokens_free_at: float | None = None
    concurrency: int | None = None

    def shifted(self, seconds: float) -> "Grant":
        """The same by another clock."""
        return replace(
            self,
            starts=tuple(start + seconds for start in self.starts),
            requests_free_at=None if self.requests_free_at is None else self.requests_free_at + seconds,
            tokens_free_at=None if self.tokens_free_at is None else self.tokens_free_at + seconds,
        )


@dataclass(slots=True)
class Bucket:
    """`rate` in units per second; `free_at` is when it will be, or was, empty."""

    limit: int
    burst: float
    rate: float
    free_at: float
    bookings: Bookings | None = None

    def start(self, units: float, now: float) -> float:
        """When a call of `units` may start at the earliest."""
        return max(now, self.free_at + (units - self.burst) / self.rate)

    def fill(self, units: float, at: float) -> int:
        """The number of the booking, 0 where none are kept."""
        number = 0 if self.bookings is None else self.bookings.booked(max(self.free_at - at, 0.0) * self.rate)
        self.free_at = max(self.free_at, at) + units / self.rate
        return number

    def correct(self, correction: Correction, now: float) -> float:
        """Gives back what was not used and books what was used beyond; answers what had to be kept."""
        kept = 0.0
        if self.bookings is not None:
            for number, units in correction.unused:
                returned = self.bookings.give_back(number, units)
                self.free_at -= returned / self.rate
                kept += units - returned
        if correction.excess:
            self.fill(correction.excess, now)
        return kept

    def starts_within(self, units: float, now: float, seconds: float) -> int:
        """How many calls of `units` may start within `seconds` from `now`; of those over the burst one at a time."""
        if units > self.burst:
            return int(self.start(units, now) <= now + seconds)
        room = (now + seconds - max(self.free_at, now)) * self.rate + self.burst
        return max(0, int(room / units + 1e-9))

    def half_room(self, units: int, now: float, lookahead: float) -> float:
        """Seconds until half the calls of the time looked ahead may be claimed: fewer are not worth a claim."""
        wanted = max(1.0, lookahead * self.rate / units / 2) * units
        return max(self.free_at - lookahead + (wanted - self.burst) / self.rate - now, 0.0)


def requests_bucket(limit: int, free_at: float, window: Window) -> Bucket:
    """Calls are whole, so that a burst of b leaves room for limit - b + 1 more within a window."""
    burst = max(1, int(limit * _BURST))
    return Bucket(limit, float(burst), (limit - burst + 1) / window.whole, free_at)


def tokens_bucket(limit: int, free_at: float, window: Window, largest: float) -> Bucket:
    """The burst is as large as the largest call of late: smaller, and every such call would wait twice."""
    burst = min(max(limit * _BURST, largest, 1.0), max(limit * _LARGEST_BURST, 1.0))
    return Bucket(limit, burst, max(limit - burst, 1.0) / window.whole, free_at)


def granted(document: JsonObject, ask: Ask, limits: Limits, now: float, window: Window) -> tuple[JsonObject, Grant]:
    """The document after `ask`, and what was granted."""
    changed = dict(document)
    requests = _requests(changed, limits, now, window)
    tokens = _tokens(changed, limits, now, window)
    kept = 0.0 if tokens is None else tokens.correct(ask.correction, now)
    starts, bookings = _starts(ask, now, requests, tokens)
    if requests is not None:
        changed |= {"requestsFreeAt": requests.free_at, "requestsRate": requests.rate}
    if tokens is not None:
        _note_size(changed, tokens, max(ask.estimates[: len(starts)], default=0), now, window)
        changed |= {"tokensFreeAt": tokens.free_at, "tokensRate": tokens.rate}
        changed |= {} if tokens.bookings is None else tokens.bookings.as_document()
    return changed, Grant(
        starts=tuple(starts),
        bookings=tuple(bookings),
        kept=kept,
        requests_free_at=None if requests is None else requests.free_at,
        tokens_free_at=None if tokens is None else tokens.free_at,
        concurrency=None if limits.concurrency is None else _held(changed, ask, limits.concurrency, now),
    )


def _requests(document: JsonObject, limits: Limits, now: float, window: Window) -> Bucket | None:
    if limits.requests_per_minute is None:
        return None
    bucket = requests_bucket(limits.requests_per_minute, document.get("requestsFreeAt", 0.0), window)
    return _at_new_rate(bucket, document.get("requestsRate"), now)


def _at_new_rate(bucket: Bucket, rate: float | None, now: float) -> Bucket:
    """Keeps what is in the bucket, which until `now` was emptied at another rate."""
    if rate is not None and rate != bucket.rate:
        if bucket.bookings is not None:
            bucket.bookings.close()
        bucket.free_at = now + (bucket.free_at - now) * rate / bucket.rate
    return bucket


def _tokens(document: JsonObject, limits: Limits, now: float, window: Window) -> Bucket | None:
    if limits.tokens_per_minute is None:
        return None
    largest, seen_at = document.get("largest", (0, 0.0))
    if now - seen_at > window.whole:
        largest = 0
        document.pop("largest", None)
    bucket = tokens_bucket(limits.tokens_per_minute, document.get("tokensFreeAt", 0.0), window, largest)
    bucket.bookings = bookings_of(document, now)
    return _at_new_rate(bucket, document.get("tokensRate"), now)


def _starts(ask: Ask, now: float, requests: Bucket | None, tokens: Bucket | None) -> tuple[list[float], list[int]]:
    starts: list[float] = []
    bookings: list[int] = []
    latest = now
    for estimate in ask.estimates:
        units = float(max(estimate, 1) if tokens is None else min(max(estimate, 1), tokens.limit))
        start = latest if requests is None else max(latest, requests.start(1, now))
        start = start if tokens is None else max(start, tokens.start(units, now))
        if start > now + ask.horizon:
            break
        if requests is not None:
            requests.fill(1, start)
        if tokens is not None:
            bookings.append(tokens.fill(units, start))
        starts.append(start)
        latest = start
    return starts, bookings


def _note_size(document: JsonObject, tokens: Bucket, units: int, now: float, window: Window) -> None:
    """Takes effect from the next asking on: these calls have waited for the burst as it was.

    A burst that grows is empty at first. Were it free to be used at once, it would come on top of what has been called.
    """
    largest, _ = document.get("largest", (0, 0.0))
    if not units or units < largest:
        return
    document["largest"] = (units, now)
    wider = tokens_bucket(tokens.limit, tokens.free_at, window, units)
    tokens.fill(max(wider.burst - tokens.burst, 0.0), now)


def _held(document: JsonObject, ask: Ask, limit: int, now: float) -> int:
    """How many calls of the limit are this replica's from now on: its fair share, less what others still hold.

    What it has running beyond that counts as held until it has ended, but is not replaced: else who came first would
    keep everything.
    """
    holders: dict[str, Any] = {
        name: holder for name, holder in document.get("holders", {}).items() if holder[2] > now and name != ask.replica
    }
    wants = {name: int(holder[1]) for name, holder in holders.items()}
    share = fair_parts({**wants, ask.replica: max(ask.wanted, ask.running)}, limit)[ask.replica]
    free = limit - sum(int(holder[0]) for holder in holders.values())
    part = max(min(share, free), 0)
    held = max(part, ask.running)
    if held or ask.wanted:
        holders[ask.replica] = [held, max(ask.wanted, ask.running), now + HOLD_SECONDS]
    document["holders"] = holders
    return part


def fair_parts(wants: dict[str, int], total: int) -> dict[str, int]:
    """Divides `total` so that nobody could have more without another, who has less, losing (max-min fairness).

    What cannot be divided goes to the first by name. Source: Bertsekas and Gallager, Data Networks, section 6.5.2.
    """
    parts: dict[str, int] = {}
    left = total
    waiting = sorted(wants, key=lambda name: (wants[name], name))
    for place, name in enumerate(waiting):
        even = left // (len(waiting) - place)
        parts[name] = min(wants[name], even)
        left -= parts[name]
    for name in sorted(wants):
        if left and parts[name] < wants[name]:
            parts[name] += 1
            left -= 1
    return parts


def bookings(document: JsonObject, limits: Limits, now: float, window: Window) -> dict[str, tuple[float, float]]:
    """For each limit that is set, requests and tokens: until when it is booked, and when the next call, be it of one
    token, may start at the earliest."""
    requests, tokens = _requests(document, limits, now, window), _tokens({**document}, limits, now, window)
    buckets = {"requests": requests, "tokens": tokens}
    return {name: (bucket.free_at, bucket.start(1, now)) for name, bucket in buckets.items() if bucket is not None}
