"""What vendors say of their limits in the headers of an answer.

Sources: OpenAI's guide to rate limits, whose names Azure OpenAI and Groq have too; Anthropic's API reference on rate
limits; Cerebras' guide to rate limits. xAI, Mistral, Fireworks and Together do not say when a limit is whole again, so
nothing can be made of what they send; Gemini sends nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

from engine.llm import Level

_COUNT = re.compile(r"[0-9]{1,15}")
_DURATION = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,18})?(?:ms|us|µs|ns|[dhms])){1,7}")
_PART = re.compile(r"([0-9.]+)([a-zµ]+)")
_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,18})?")
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_LONGEST_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class _Row:
    """The three headers that tell of one limit."""

    kind: str
    limit: str
    remaining: str
    reset: str


def _row(kind: str, pattern: str) -> _Row:
    return _Row(kind, *(pattern.format(what) for what in ("limit", "remaining", "reset")))


_ROWS = (
    _row("requests", "x-ratelimit-{}-requests"),
    _row("tokens", "x-ratelimit-{}-tokens"),
    _row("requests", "anthropic-ratelimit-requests-{}"),
    _row("tokens", "anthropic-ratelimit-tokens-{}"),
    _row("tokens", "anthropic-ratelimit-input-tokens-{}"),
    _row("tokens", "anthropic-ratelimit-output-tokens-{}"),
    _row("requests", "x-ratelimit-{}-requests-day"),
    _row("tokens", "x-ratelimit-{}-tokens-minute"),
)


def levels_in(headers: Mapping[str, str], now: datetime) -> tuple[Level, ...]:
    """At most one level of each kind: of several limits the one of which the smallest share is left.

    What is missing or malformed gives nothing. A reset over a day away counts as a day. Header names are
    case-insensitive.
    """
    told = [row for row in _ROWS if row.remaining in headers]
    if not told:
        return ()
    scarcest: dict[str, Level] = {}
    for row in told:
        level = _level(row, headers, now)
        if level is not None and _share_left(level) < _share_left(scarcest.get(row.kind)):
            scarcest[row.kind] = level
    return tuple(scarcest.values())


def _level(row: _Row, headers: Mapping[str, str], now: datetime) -> Level | None:
    limit, remaining = _count(headers.get(row.limit)), _count(headers.get(row.remaining))
    resets_in = _seconds_until(headers.get(row.reset, "").strip(), headers, now)
    if not limit or remaining is None or resets_in is None:
        return None
    bounded = min(max(resets_in, 0.0), _LONGEST_SECONDS)
    return Level(kind=row.kind, limit=limit, remaining=remaining, resets_in=bounded)


def _share_left(level: Level | None) -> float:
    return float("inf") if level is None else level.remaining / level.limit


def _count(text: str | None) -> int | None:
    match = _COUNT.fullmatch((text or "").strip())
    return None if match is None else int(match[0])


def _seconds_until(text: str, headers: Mapping[str, str], now: datetime) -> float | None:
    """A duration as Go writes it, seconds, or an instant as in RFC 3339."""
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if instant.tzinfo is None else (instant - sent_at(headers, now)).total_seconds()


def sent_at(headers: Mapping[str, str], now: datetime) -> datetime:
    """The instant that the answer's dates count from: its own Date where it has one, so that a clock gone wrong on
    either side does no harm."""
    return http_date(headers.get("Date")) or now


@lru_cache(maxsize=64)
def http_date(text: str | None) -> datetime | None:
    """None where it is none. Kept, because answers of the same second have the same one."""
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
