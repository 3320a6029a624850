"""What a run may still use of its budget, and how much of a plan fits into it. Pure.

What calls can take at most is reserved before they are made: as many calls as a job may make that may cost something,
a token for every byte that is sent, and an answer as long as the model may give (see most_of_call). A plan is asked in
parts that fit, the next part when what this one really took is known. What is kept back for later, by contrast, is
expected: the most tokens per character that this run has seen, and four times the longest answer (see need_of_call).
"""

import math
from collections.abc import Iterable, Mapping
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

USUAL_LIMIT = 4096
"""Tokens of an answer that any vendor's models can give."""
_FAR_LONGER = 8

_MESSAGE_OVERHEAD = 512
"""Tokens for roles, separators and a vendor's own words around what is sent."""
_CORRECTION = 4096
"""Bytes of what is said to an answer that misses its schema, the answer and the schema aside."""


@dataclass(frozen=True, slots=True)
class Need:
    """Calls, tokens and an amount of the budget's currency."""

    calls: int = 0
    tokens: int = 0
    amount: Decimal = ZERO

    def __add__(self, other: "Need") -> "Need":
        return Need(self.calls + other.calls, self.tokens + other.tokens, self.amount + other.amount)

    def __sub__(self, other: "Need") -> "Need":
        return Need(self.calls - other.calls, self.tokens - other.tokens, self.amount - other.amount)

    def times(self, count: int) -> "Need":
        return Need(self.calls * count, self.tokens * count, self.amount * count)

    def holds(self, other: "Need") -> bool:
        """Whether `other` is no more of anything."""
        return self.calls >= other.calls and self.tokens >= other.tokens and self.amount >= other.amount


NOTHING = Need()


@dataclass(frozen=True, slots=True)
class Tariff:
    """What is known of a model before it is called. `most_output` is the limit in tokens of an answer, by whichever
    model, None where one has none; `others` are the prices of models that may answer in its place."""

    prices: Prices
    most_output: int | None = None
    others: tuple[Prices, ...] = ()


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
    answer = longest_answer(tariff, seen, brief=True)
    cost = cost_of(given, answer, tariff.prices)
    return Need(MAX_ATTEMPTS, given + answer, cost.input + cost.output)


def longest_answer(tariff: Tariff, seen: Seen | None, *, brief: bool = False) -> int:
    """Tokens that an answer may have where a run may use so many tokens or so much money: within the model's limit,
    4,096 or eight times the longest one seen. `brief`: what it is expected to have at most, where the budget nears its
    end."""
    longest = 0 if seen is None else seen.answer
    wanted = _usual_answer(seen) if brief else max(USUAL_LIMIT, _FAR_LONGER * longest)
    return wanted if tariff.most_output is None else min(tariff.most_output, wanted)


def _usual_answer(seen: Seen | None) -> int:
    return _FIRST_ANSWER if seen is None else _LONGER * seen.answer + _OVERHEAD


def most_of_call(sent: int, schema: int, answer: int, tariff: Tariff) -> Need:
    """The most that one call can take that sends so many bytes, is held to `schema` bytes of a schema, and may answer
    with so many tokens.

    No tokenizer makes two tokens of one byte. An answer that missed its schema may have been sent back with the call.
    """
    again = answer + schema + _CORRECTION if schema else 0
    given = sent + schema + again + _MESSAGE_OVERHEAD
    costs = [_highest_cost(given, answer, prices) for prices in (tariff.prices, *tariff.others)]
    return Need(1, given + answer, max(costs))


def _highest_cost(given: int, answer: int, prices: Prices) -> Decimal:
    cached = given if prices.cached_input is not None and prices.cached_input > prices.input else 0
    cost = cost_of(given, answer, prices, cached)
    return cost.input + cost.output


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


def seen_to_document(seen: Mapping[str, Seen]) -> JsonObject:
    return {name: [each.ratio, each.answer] for name, each in sorted(seen.items())}


def seen_from_document(document: JsonObject) -> dict[str, Seen]:
    return {name: Seen(float(ratio), int(answer)) for name, (ratio, answer) in document.items()}


def need_to_document(need: Need) -> JsonObject:
    return {"calls": need.calls, "tokens": need.tokens, "amount": str(need.amount)}


def need_from_document(document: JsonObject) -> Need:
    return Need(document["calls"], document["tokens"], Decimal(document["amount"]))
