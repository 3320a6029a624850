"""What a run may still use of its budget, and how much of a plan fits into it. Pure.

What a plan may take is reserved before any of it is asked, by figures that are rather high than low: as many calls as a
job may be charged for, the most tokens per character that this run has seen, and four times the longest answer seen,
within the model's limit. The plan is cut where it does not fit, and what it really took is what counts afterwards.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from engine.jobs.job import ZERO, Totals
from engine.llm import JsonObject
from engine.pricing import Prices, cost_of
from engine.records.searches import RunBudget
from llm_optimizer.rollouts import MAX_ATTEMPTS

_FIRST_RATIO = 0.5
"""Tokens per character before anything is known: texts of most languages have fewer."""
_FIRST_ANSWER = 2048
_MARGIN = 1.25
_LONGER = 4
_OVERHEAD = 64


@dataclass(frozen=True, slots=True)
class Need:
    """Calls, tokens and an amount of the budget's currency."""

    calls: int = 0
    tokens: int = 0
    amount: Decimal = ZERO

    def __add__(self, other: "Need") -> "Need":
        return Need(self.calls + other.calls, self.tokens + other.tokens, self.amount + other.amount)


@dataclass(frozen=True, slots=True)
class Tariff:
    """What is known of a model before it is called. `most_output` is its limit in tokens, None where it has none."""

    prices: Prices
    most_output: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What calls of one model in one role have taken at most: tokens in per character, tokens out."""

    ratio: float = 0.0
    answer: int = 0

    def learned(self, characters: int, totals: Totals) -> "Seen":
        """After a job with so many characters took `totals`, in one call or several."""
        calls = max(totals.calls, 1)
        ratio = totals.input_tokens / calls / max(characters, 1)
        return Seen(max(self.ratio, ratio), max(self.answer, math.ceil(totals.output_tokens / calls)))


def need_of_call(characters: int, tariff: Tariff, seen: Seen | None) -> Need:
    """The most that one job of so many characters is expected to take."""
    ratio = _FIRST_RATIO if seen is None or not seen.ratio else seen.ratio * _MARGIN
    given = math.ceil(characters * ratio) + _OVERHEAD
    usual = _FIRST_ANSWER if seen is None else _LONGER * seen.answer + _OVERHEAD
    answer = usual if tariff.most_output is None else min(tariff.most_output, usual)
    cost = cost_of(given, answer, tariff.prices)
    return Need(MAX_ATTEMPTS, given + answer, cost.input + cost.output)


def spent_of(totals: Iterable[Totals]) -> Need:
    """What calls really took."""
    need = Need()
    for each in totals:
        need += Need(each.calls, each.input_tokens + each.output_tokens, each.input_cost + each.output_cost)
    return need


def fits(budget: RunBudget, spent: Need, wanted: Need) -> bool:
    """Whether `wanted` may be used on top of `spent`."""
    whole = spent + wanted
    amount = None if budget.amount is None else budget.amount.amount
    caps = ((budget.calls, whole.calls), (budget.tokens, whole.tokens), (amount, whole.amount))
    return all(cap is None or used <= cap for cap, used in caps)


def how_many_fit(budget: RunBudget, spent: Need, needs: Sequence[Need]) -> int:
    """How many of `needs`, from the first one on, may be used together."""
    reserved = Need()
    for place, need in enumerate(needs):
        reserved += need
        if not fits(budget, spent, reserved):
            return place
    return len(needs)


def seen_to_document(seen: Mapping[str, Seen]) -> JsonObject:
    return {name: [each.ratio, each.answer] for name, each in sorted(seen.items())}


def seen_from_document(document: JsonObject) -> dict[str, Seen]:
    return {name: Seen(float(ratio), int(answer)) for name, (ratio, answer) in document.items()}
