"""Tokens, durations and costs of streams for an answer: pure.

totalTokens and totalCost are the sums of the two numbers beside them, so that a reader who adds them up gets the same.
"""

from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Any

from api.services.summary import MIXED
from engine.jobs.job import ZERO
from engine.records.streams import Stream, StreamSums

Metrics = dict[str, Any]


def metrics_of(stream: Stream) -> Metrics | None:
    """One stream's processingMetrics; None while it streams. Costs are null where no call was priced."""
    if stream.total_duration is None:
        return None
    totals = stream.totals
    return {
        **_tokens(totals.input_tokens, totals.output_tokens),
        **_durations(totals.duration, stream.total_duration),
        **_costs(totals.input_cost, totals.output_cost, totals.currencies),
    }


def summary_metrics(rows: Sequence[StreamSums]) -> Metrics | None:
    """The sums over all streams that have ended; None where none has made a call."""
    measured = [row for row in rows if row.measured]
    if not measured:
        return None
    llm, total = (sum(getattr(row, name) for row in measured) for name in ("llm_duration", "total_duration"))
    return {
        **_tokens(sum(row.input_tokens for row in measured), sum(row.output_tokens for row in measured)),
        **_durations(llm, total),
        **_costs(
            sum((row.input_cost for row in measured), ZERO),
            sum((row.output_cost for row in measured), ZERO),
            frozenset().union(*(row.currencies for row in measured)),
        ),
    }


def group_metrics(row: StreamSums) -> Metrics:
    costs = _costs(row.input_cost, row.output_cost, row.currencies)
    return {
        **_tokens(row.input_tokens, row.output_tokens),
        "totalDuration": row.total_duration,
        "totalCost": costs["totalCost"],
        "currency": costs["currency"],
    }


def _tokens(given: int, made: int) -> Metrics:
    return {"inputTokens": given, "outputTokens": made, "totalTokens": given + made}


def _durations(llm: float, total: float) -> Metrics:
    """In seconds; what is not the providers' is ours."""
    return {"llmDuration": llm, "duration": total, "totalDuration": total, "overheadDuration": max(total - llm, 0.0)}


def _costs(given: Decimal, made: Decimal, currencies: Collection[str]) -> Metrics:
    if len(currencies) != 1:
        currency = MIXED if currencies else None
        return {"inputCost": None, "outputCost": None, "totalCost": None, "currency": currency}
    inputs, outputs = float(given), float(made)
    [currency] = currencies
    return {"inputCost": inputs, "outputCost": outputs, "totalCost": inputs + outputs, "currency": currency}
