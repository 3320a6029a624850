"""Tokens, durations and costs added up for an answer: pure."""

from collections.abc import Sequence
from typing import Any

from engine.jobs.job import Totals
from engine.jobs.queue import SummaryRow
from engine.jobs.states import JobState

MIXED = "multiple currencies"
PARTLY = "partly without a currency"
_RESULTS = frozenset({JobState.PROCESSED, JobState.CONSUMED})

Metrics = dict[str, Any]
"""processingMetrics as the wire has them: counts, seconds, and money as floats."""


def counts(rows: Sequence[SummaryRow]) -> dict[str, int]:
    """Jobs by status, and `total`."""
    by_status = {str(state): 0 for state in JobState}
    for row in rows:
        by_status[row.status] += row.count
    return {**by_status, "total": sum(row.count for row in rows)}


def summed(rows: Sequence[SummaryRow]) -> Metrics | None:
    """The sums over all jobs with a result; None where none of them made a call."""
    measured = [row for row in rows if row.status in _RESULTS and row.measured]
    if not measured:
        return None
    totals = Totals(
        calls=sum(row.measured for row in measured),
        input_tokens=sum(row.input_tokens for row in measured),
        output_tokens=sum(row.output_tokens for row in measured),
        duration=sum(row.duration for row in measured),
        input_cost=sum((row.input_cost for row in measured), Totals().input_cost),
        output_cost=sum((row.output_cost for row in measured), Totals().output_cost),
        currencies=frozenset().union(*(row.currencies for row in measured)),
    )
    partly = bool(totals.currencies) and any(not row.currencies for row in measured)
    return metrics_of(totals, partly_priced=partly)


def metrics_of(totals: Totals, *, partly_priced: bool = False) -> Metrics | None:
    """None where no call was made. Costs only where all are in one currency; else `currency` says why not.

    totalCost is the sum of the two floats beside it, so that a reader who adds them up gets the same number.
    """
    if not totals.calls:
        return None
    metrics: Metrics = {
        "inputTokens": totals.input_tokens,
        "outputTokens": totals.output_tokens,
        "totalTokens": totals.input_tokens + totals.output_tokens,
        "duration": totals.duration,
    }
    if len(totals.currencies) > 1 or partly_priced:
        return metrics | {"currency": PARTLY if len(totals.currencies) == 1 else MIXED}
    for currency in totals.currencies:
        input_cost, output_cost = float(totals.input_cost), float(totals.output_cost)
        costs = {"inputCost": input_cost, "outputCost": output_cost, "totalCost": input_cost + output_cost}
        metrics |= {**costs, "currency": currency}
    return metrics
