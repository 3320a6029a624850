"""Money that is spent in common: what a client's budget or a worker's cost cap still allows. Pure.

What calls in flight may cost is held in a document that all replicas share (see engine.shared), in parts that a replica
takes for many calls at a time. For a client the durable truth is its usage, which is read beside the document; what
has moved from a replica's part into the usage since is counted twice rather than not at all:

    moved     what all replicas together have reported as settled so far
    holders   by replica: what it holds for calls, and until when that is valid; who is silent for longer has none
    reached   whether it has been told that the limit is reached

A worker has no usage of its own: what has moved is what it has spent, and a part that lapses counts as spent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from engine.llm import JsonObject
from engine.pricing import to_units
from engine.records.values import BudgetPeriod, Client, Money, Worker, WorkerScope, WorkerStatus

_DAY = timedelta(days=1)


class PurseKind(StrEnum):
    CLIENT = "client"
    WORKER = "worker"


class Days(NamedTuple):
    """Days of UTC, both included, and the instant at which they are over; None: never."""

    first: date
    last: date
    ends_at: datetime | None


def days_of(period: BudgetPeriod, now: datetime) -> Days:
    """The period that `now` is in."""
    today = now.astimezone(UTC).date()
    if period is BudgetPeriod.TOTAL:
        return Days(date.min, date.max, None)
    first = today if period is BudgetPeriod.DAY else today.replace(day=1)
    last = today if period is BudgetPeriod.DAY else (first + 31 * _DAY).replace(day=1) - _DAY
    return Days(first, last, datetime.combine(last + _DAY, time(), UTC))


@dataclass(frozen=True, slots=True, kw_only=True)
class Purse:
    """What one owner may spend in one period. `key` names its document; `text` says whose and how much it is.

    `version` rises with every change of the owner: replicas that still go by an older limit are told from the others.
    """

    kind: PurseKind
    owner_id: str
    key: str
    limit: Money
    text: str
    days: Days | None = None
    version: int = field(default=0, compare=False)

    @property
    def units(self) -> int:
        return to_units(self.limit.amount)

    @property
    def ends_at(self) -> datetime | None:
        return None if self.days is None else self.days.ends_at

    def is_over(self, now: datetime) -> bool:
        return self.ends_at is not None and self.ends_at <= now

    def used_up(self, *, held: bool = False) -> str:
        """For who waits for it; `held`: the last of it may still be given back."""
        so_far = " or held for calls in flight" if held else ""
        if self.ends_at is not None:
            return f"{self.text} is used up{so_far}: its period ends at {self.ends_at.isoformat(timespec='seconds')}"
        remedy = "raise or remove it" if self.kind is PurseKind.CLIENT else "stop the worker and start it anew"
        return f"{self.text} is used up{so_far}, and does not end by itself: {remedy}"


def purse_of_client(client: Client, now: datetime) -> Purse | None:
    budget = client.budget
    if budget is None:
        return None
    days = days_of(budget.period, now)
    return Purse(
        kind=PurseKind.CLIENT,
        owner_id=client.id,
        key=f"purse:client:{client.id}:{budget.period}:{days.first.isoformat()}:{budget.limit.currency}",
        limit=budget.limit,
        text=f"the budget of client {client.id}, {_said(budget.limit)} {_PER[budget.period]},",
        days=days,
        version=client.revision,
    )


def purse_of_worker(worker: Worker) -> Purse | None:
    """A running worker's: it begins with its last start, and not with another replica taking it over."""
    limit = worker.config.max_cost
    if limit is None or worker.status is not WorkerStatus.RUNNING:
        return None
    since = worker.metadata.updated_at or worker.metadata.created_at
    named = f"worker {worker.id}" if worker.scope is WorkerScope.CLIENT else "a worker that serves all clients"
    return Purse(
        kind=PurseKind.WORKER,
        owner_id=worker.id,
        key=f"purse:worker:{worker.id}:{since.isoformat()}:{limit.currency}",
        limit=limit,
        text=f"the maxCost of {named}, {_said(limit)} from one start to the next,",
    )


_PER = {BudgetPeriod.DAY: "a day", BudgetPeriod.MONTH: "a month", BudgetPeriod.TOTAL: "in all"}


def _said(money: Money) -> str:
    return f"{money.amount.normalize():f} {money.currency}"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the usage said, in units, and what `moved` was before it was asked."""

    units: int = 0
    moved: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a replica reports and wants, in units. `until` and all instants are seconds since 1970.

    `settled` has become durable since it asked last; `keep` is what it goes on holding for calls in flight or not
    settled yet; it would like `wanted` more, and could do with `least`.
    """

    replica: str
    until: float
    settled: int = 0
    keep: int = 0
    wanted: int = 0
    least: int = 0


class News(StrEnum):
    """What has become of a limit with this change, for the log: told by one replica, once."""

    REACHED = "reached"
    RESUMED = "resumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """`held` is what the replica holds from now on, `left` what nobody holds; in units.

    `reached`: as much as the limit has durably been spent, so that only another limit or period helps.
    """

    held: int
    left: int
    reached: bool
    news: News | None = None


def moved_of(document: JsonObject) -> int:
    return int(document.get("moved", "0"))


def granted(document: JsonObject, ask: Ask, purse: Purse, seen: Seen, now: float) -> tuple[JsonObject, Grant]:
    """The document after `ask`, and what was granted."""
    others, lapsed = _others(document, ask.replica, now)
    moved = moved_of(document) + ask.settled
    if purse.kind is PurseKind.WORKER:
        moved += lapsed
    spent = seen.units + max(moved - seen.moved, 0)
    left = purse.units - spent - sum(int(held) for held, _ in others.values()) - ask.keep
    extra = _extra(left, ask, len(others))
    held = ask.keep + extra
    # Not `spent`, in which what is on its way into the usage may count twice for a moment.
    reached = (moved if purse.kind is PurseKind.WORKER else seen.units) >= purse.units
    told, news = _told(document, purse.version, reached=reached)
    if held:
        others[ask.replica] = (str(held), ask.until)
    changed = {"moved": str(moved), "holders": others, **told}
    return changed, Grant(held=held, left=left - extra, reached=reached, news=news)


def _others(document: JsonObject, replica: str, now: float) -> tuple[dict[str, Any], int]:
    """What the other replicas hold, and what is held by those that have been silent for too long."""
    holders = {name: (held, until) for name, (held, until) in document.get("holders", {}).items() if name != replica}
    living = {name: entry for name, entry in holders.items() if entry[1] > now}
    return living, sum(int(held) for name, (held, _) in holders.items() if name not in living)


def _extra(left: int, ask: Ask, others: int) -> int:
    """A fair part of what is left, as if one more were to come, or what one call needs; the last goes whole."""
    if left <= 0:
        return 0
    return min(ask.wanted, max(left // (others + 2), min(left, ask.least)))


def _told(document: JsonObject, version: int, *, reached: bool) -> tuple[JsonObject, News | None]:
    """What the document says of the limit, and whether that is news.

    A limit of before is no matter any more, and one that was reached stays so: who finds less has read the usage
    before.
    """
    known, was = document.get("version", 0), bool(document.get("reached"))
    if version < known or (version == known and was):
        return {"version": known, "reached": was}, None
    news = None if was == reached else News.REACHED if reached else News.RESUMED
    return {"version": version, "reached": reached}, news


def abandoned(document: JsonObject, ask: Ask, version: int) -> tuple[JsonObject, News | None]:
    """The document of a purse of that version, which is no longer of use: there is another limit, or a new period."""
    holders = {name: entry for name, entry in document.get("holders", {}).items() if name != ask.replica}
    if ask.keep:
        holders[ask.replica] = (str(ask.keep), ask.until)
    moved = moved_of(document) + ask.settled
    told, news = _told(document, version + 1, reached=False)
    return {"moved": str(moved), "holders": holders, **told}, news


def reserved_in(document: Mapping[str, Any], now: float) -> int:
    """What all replicas hold for calls, in units."""
    return sum(int(held) for held, until in document.get("holders", {}).values() if until > now)
