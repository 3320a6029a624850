"""What calls have used and cost, summed up by day, client, model and operation.

The sums are durable and part of no job's life: a deleted job's calls stay in them. A call counts once however often
its attempt is written, on the day (of UTC) it began, under its own model and its job's operation. Amounts are whole
units of pricing.QUANTUM until the end, so that sums agree with the jobs' totals to the last digit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple, Protocol

from engine.jobs.job import ZERO
from engine.pricing import from_units


class Dimension(StrEnum):
    """What sums can be told apart by, besides the currency."""

    DAY = "day"
    CLIENT = "client"
    MODEL = "model"
    OPERATION = "operation"


ALL_DIMENSIONS = frozenset(Dimension)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery:
    """All given conditions hold together; `first` and `last` are days, both included. `client_id` None: every client's.

    Sums that differ in none of `group_by` are added up; no two currencies ever are.
    """

    first: date
    last: date
    client_id: str | None = None
    model: str | None = None
    operation: str | None = None
    group_by: frozenset[Dimension] = ALL_DIMENSIONS

    def of_client(self, client_id: str) -> "UsageQuery":
        return replace(self, client_id=client_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Sums over the calls that share what is set here; None where it was not asked for.

    `currency` is None for calls that were not priced. `errors` and `unknown` (the answer was lost) are among `calls`;
    `cached_input_tokens` are among the input's, `reasoning_tokens` among the output's.
    """

    day: date | None = None
    client_id: str | None = None
    model: str | None = None
    operation: str | None = None
    currency: str | None = None
    calls: int = 0
    errors: int = 0
    unknown: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    input_cost: Decimal = ZERO
    output_cost: Decimal = ZERO


class UsageStore(Protocol):
    """The sums, as a back-end has them. Synchronous, from any thread; raises StorageUnavailable."""

    def rows(self, query: UsageQuery) -> list[UsageRow]:
        """Rows by rising day, client, model, operation and currency. What was settled or booked before is in them."""
        ...


class UsageKey(NamedTuple):
    """What a back-end keeps sums for; `day` as ISO text, `currency` "" where there is none."""

    day: str
    client_id: str
    model: str
    operation: str
    currency: str


SUMS = ("calls", "errors", "unknown", "inputTokens", "outputTokens", "cachedInputTokens", "reasoningTokens")
"""What is summed up before the two costs, which come last, in units."""
WIDTH = len(SUMS) + 2


def grouped(entries: Iterable[tuple[UsageKey, Sequence[int]]], query: UsageQuery) -> list[UsageRow]:
    """Rows of those entries that the query means, added up as it asks."""
    groups: dict[UsageKey, list[int]] = {}
    for key, sums in entries:
        if _passes(key, query):
            entry = groups.setdefault(_group(key, query.group_by), [0] * WIDTH)
            entry[:] = [first + second for first, second in zip(entry, sums, strict=True)]
    return [_row(key, sums, query.group_by) for key, sums in sorted(groups.items())]


_ADDED = (
    *("calls", "errors", "unknown", "input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens"),
    *("input_cost", "output_cost"),
)


def totals_by_currency(rows: Iterable[UsageRow]) -> list[UsageRow]:
    """`rows` added up: one row for each currency, with nothing else that tells them apart."""
    groups: dict[str, list[UsageRow]] = {}
    for row in rows:
        groups.setdefault(row.currency or "", []).append(row)
    return [
        UsageRow(currency=currency or None, **{name: sum(getattr(row, name) for row in group) for name in _ADDED})
        for currency, group in sorted(groups.items())
    ]


def _passes(key: UsageKey, query: UsageQuery) -> bool:
    if not query.first.isoformat() <= key.day <= query.last.isoformat():
        return False
    wanted = ((query.client_id, key.client_id), (query.model, key.model), (query.operation, key.operation))
    return all(value is None or value == own for value, own in wanted)


def _group(key: UsageKey, group_by: frozenset[Dimension]) -> UsageKey:
    return UsageKey(
        key.day if Dimension.DAY in group_by else "",
        key.client_id if Dimension.CLIENT in group_by else "",
        key.model if Dimension.MODEL in group_by else "",
        key.operation if Dimension.OPERATION in group_by else "",
        key.currency,
    )


def _row(key: UsageKey, sums: Sequence[int], group_by: frozenset[Dimension]) -> UsageRow:
    calls, errors, unknown, input_tokens, output_tokens, cached, reasoning, input_units, output_units = sums
    return UsageRow(
        day=date.fromisoformat(key.day) if Dimension.DAY in group_by else None,
        client_id=key.client_id if Dimension.CLIENT in group_by else None,
        model=key.model if Dimension.MODEL in group_by else None,
        operation=key.operation if Dimension.OPERATION in group_by else None,
        currency=key.currency or None,
        calls=calls,
        errors=errors,
        unknown=unknown,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=cached,
        reasoning_tokens=reasoning,
        input_cost=from_units(input_units),
        output_cost=from_units(output_units),
    )
