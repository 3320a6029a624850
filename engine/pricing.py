"""What a call costs. Money is decimal inside and becomes a float only in an answer."""

from dataclasses import dataclass
from decimal import Decimal

QUANTUM = Decimal("1E-12")
"""The smallest amount on a ledger: a trillionth of a currency unit, so that sums are exact in integers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """`input` and `output` are the price of `tokens` tokens in `currency`."""

    tokens: int
    currency: str
    input: Decimal
    output: Decimal


@dataclass(frozen=True, slots=True)
class Cost:
    """Amounts in `currency`, rounded to QUANTUM."""

    input: Decimal
    output: Decimal
    currency: str


def cost_of(input_tokens: int, output_tokens: int, prices: Prices) -> Cost:
    """count / prices.tokens * price, for each direction."""
    return Cost(
        (input_tokens * prices.input / prices.tokens).quantize(QUANTUM),
        (output_tokens * prices.output / prices.tokens).quantize(QUANTUM),
        prices.currency,
    )


def to_units(amount: Decimal) -> int:
    """`amount` as a whole number of QUANTUM, the form back-ends store and add up."""
    return int(amount.scaleb(12).to_integral_value())


def from_units(units: int) -> Decimal:
    return Decimal(units).scaleb(-12)
