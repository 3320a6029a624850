"""What a call costs. Money is decimal inside and becomes a float only in an answer."""

from dataclasses import dataclass
from decimal import Decimal

QUANTUM = Decimal("1E-12")
"""The smallest amount on a ledger: a trillionth of a currency unit, so that sums are exact in integers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """`input` and `output` are the price of `tokens` tokens in `currency`.

    `cached_input` is that of input which the vendor had cached; None: no other than `input`.
    """

    tokens: int
    currency: str
    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """Amounts in `currency`, rounded to QUANTUM."""

    input: Decimal
    output: Decimal
    currency: str


def cost_of(input_tokens: int, output_tokens: int, prices: Prices, cached_input_tokens: int = 0) -> Cost:
    """count / prices.tokens * price, for each direction; `cached_input_tokens` are part of `input_tokens`."""
    given = input_tokens * prices.input
    if prices.cached_input is not None:
        given += cached_input_tokens * (prices.cached_input - prices.input)
    return Cost(
        (given / prices.tokens).quantize(QUANTUM),
        (output_tokens * prices.output / prices.tokens).quantize(QUANTUM),
        prices.currency,
    )


def to_units(amount: Decimal) -> int:
    """`amount` as a whole number of QUANTUM, the form back-ends store and add up."""
    return int(amount.scaleb(12).to_integral_value())


def from_units(units: int) -> Decimal:
    return Decimal(units).scaleb(-12)
