"""Usage: answers as JSON and CSV."""

import csv
import io
from datetime import date
from decimal import Decimal
from typing import Any

from pydantic import Field

from api.models.base import Answer
from api.services.usage import UsagePage
from engine.usage import Dimension, UsageRow

Wire = dict[str, Any]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes a cell for a formula by. Source: OWASP, CSV Injection."""


class UsageSums(Answer):
    """Costs are numbers and, exactly, decimal texts. null where the calls were not priced."""

    currency: str | None
    calls: int
    errors: int = Field(description="Calls that failed; among `calls`.")
    unknown: int = Field(description="Calls whose answer was lost, and which may have been charged; among `calls`.")
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = Field(description="Among inputTokens.")
    reasoning_tokens: int = Field(description="Among outputTokens.")
    input_cost: float | None
    output_cost: float | None
    cost: float | None
    input_cost_exact: str | None
    output_cost_exact: str | None
    cost_exact: str | None


class UsageItem(UsageSums):
    """What is not grouped by is null."""

    day: date | None = Field(description="Of UTC, on which the calls began.")
    client_id: str | None
    model: str | None
    operation: str | None


class UsageResponse(Answer):
    """`total` counts the items there are without paging; `totals` adds all of them up, by currency."""

    first_day: date = Field(alias="from")
    last_day: date = Field(alias="to")
    group_by: list[Dimension]
    items: list[UsageItem]
    total: int
    totals: list[UsageSums]


def usage_to_wire(page: UsagePage) -> Wire:
    """The fields of UsageResponse."""
    return {
        "from": page.query.first,
        "to": page.query.last,
        "groupBy": [dimension for dimension in Dimension if dimension in page.query.group_by],
        "items": [{**_names(row), **_sums(row)} for row in page.rows],
        "total": page.total,
        "totals": [_sums(row) for row in page.totals],
    }


def _names(row: UsageRow) -> Wire:
    return {"day": row.day, "clientId": row.client_id, "model": row.model, "operation": row.operation}


def _counts(row: UsageRow) -> Wire:
    return {
        "currency": row.currency,
        "calls": row.calls,
        "errors": row.errors,
        "unknown": row.unknown,
        "inputTokens": row.input_tokens,
        "outputTokens": row.output_tokens,
        "cachedInputTokens": row.cached_input_tokens,
        "reasoningTokens": row.reasoning_tokens,
    }


def _costs(row: UsageRow) -> dict[str, Decimal | None]:
    if row.currency is None:
        return {"inputCost": None, "outputCost": None, "cost": None}
    return {"inputCost": row.input_cost, "outputCost": row.output_cost, "cost": row.input_cost + row.output_cost}


def _sums(row: UsageRow) -> Wire:
    costs = _costs(row)
    numbers = {name: None if cost is None else float(cost) for name, cost in costs.items()}
    return {**_counts(row), **numbers, **{f"{name}Exact": exact(cost) for name, cost in costs.items()}}


def exact(amount: Decimal | None) -> str | None:
    """A decimal as plain digits, without zeros that say nothing."""
    if amount is None:
        return None
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def usage_to_csv(page: UsagePage) -> str:
    """The items with a heading line; costs are exact, what is null is empty."""
    written = io.StringIO()
    lines = csv.writer(written)
    heading = UsageRow()
    lines.writerow([*_names(heading), *_counts(heading), *_costs(heading)])
    for row in page.rows:
        texts = [_cell(value) for value in (*_names(row).values(), row.currency)]
        lines.writerow([*texts, *list(_counts(row).values())[1:], *map(exact, _costs(row).values())])
    return written.getvalue()


def _cell(value: Any) -> str:
    """A text that no spreadsheet runs as a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
