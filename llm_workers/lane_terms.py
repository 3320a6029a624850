"""The terms of models' lanes, and the words for why one takes no call."""

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from llm_workers.capacity import Window
from llm_workers.pace import BreakerTerms


class Reason(StrEnum):
    """Why a model takes no call now."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"
    RATE_LIMIT = "rate_limit"
    QUOTA = "quota"
    BREAKER = "breaker"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneTerms:
    """`lookahead` is for how many seconds' worth of calls jobs are claimed in advance; `hold` how long a claimed job
    waits at most before it is given back. The pauses are for when the vendor announces none."""

    window: Window = field(default_factory=Window)
    lookahead: float = 1.0
    hold: float = 2.0
    horizon: float = 3.0
    rate_pause: timedelta = timedelta(seconds=1)
    longest_rate_pause: timedelta = timedelta(minutes=1)
    quota_pause: timedelta = timedelta(minutes=1)
    longest_quota_pause: timedelta = timedelta(minutes=15)
    breaker: BreakerTerms = field(default_factory=BreakerTerms)


@dataclass(frozen=True, slots=True)
class Shut:
    """Until an instant of the steady clock no call is made. `text` is for people."""

    until: float
    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class Denied:
    """No place now; `seconds` is after how long there may be one, 0: as soon as a call ends."""

    seconds: float
    reason: Reason
    text: str
