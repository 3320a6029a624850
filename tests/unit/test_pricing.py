"""What a call costs: exact, and independent of the order of adding up."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from engine.jobs.job import ZERO, Totals, totals_of
from engine.pricing import QUANTUM, Cost, Prices, cost_of, from_units, to_units
from tests.support.factories import make_call

MONEY = st.decimals(min_value=0, max_value=1000, places=6)
COUNTS = st.integers(0, 10_000_000)


def test_a_price_per_million() -> None:
    """1,200 tokens in and 300 out at 2.50 and 10.00 dollars a million are 0.003 dollars each."""
    prices = Prices(tokens=1_000_000, currency="USD", input=Decimal("2.50"), output=Decimal("10.00"))
    assert cost_of(1200, 300, prices) == Cost(Decimal("0.003"), Decimal("0.003"), "USD")


def test_cached_input_has_a_price_of_its_own() -> None:
    """Of 1,000 tokens in, 800 cached at a tenth of 2.50 dollars a million cost 0.0002, the others 0.0005 dollars."""
    prices = Prices(
        tokens=1_000_000, currency="USD", input=Decimal("2.50"), output=Decimal(10), cached_input=Decimal("0.25")
    )
    assert cost_of(1000, 0, prices, 800).input == Decimal("0.0007")
    assert cost_of(1000, 0, prices).input == Decimal("0.0025")
    assert cost_of(1000, 0, replace(prices, cached_input=None), 800).input == Decimal("0.0025")
    assert cost_of(1000, 0, replace(prices, cached_input=ZERO), 1000).input == ZERO


def test_one_token_of_a_cheap_model_is_not_free() -> None:
    """A single token at a cent a million is a hundred-millionth of a dollar, kept to the last digit."""
    cost = cost_of(1, 0, Prices(tokens=1_000_000, currency="USD", input=Decimal("0.01"), output=ZERO))
    assert cost.input == Decimal("0.00000001")
    assert to_units(cost.input) == 10_000
    assert cost.output == ZERO


@given(tokens=COUNTS, price=MONEY, per=st.sampled_from([1, 1000, 1_000_000]))
def test_a_cost_is_right_to_a_trillionth(tokens: int, price: Decimal, per: int) -> None:
    """The cost differs from count / per * price by no more than half the smallest amount."""
    cost = cost_of(tokens, 0, Prices(tokens=per, currency="EUR", input=price, output=ZERO))
    assert abs(Fraction(cost.input) - Fraction(tokens) * Fraction(price) / per) <= Fraction(QUANTUM) / 2


@given(units=st.integers(-(10**24), 10**24))
def test_units_are_amounts(units: int) -> None:
    """An amount and its whole number of trillionths are the same thing, both ways."""
    assert to_units(from_units(units)) == units


@given(amounts=st.lists(st.tuples(COUNTS, COUNTS, MONEY), max_size=20), chance=st.randoms(use_true_random=False))
def test_totals_do_not_depend_on_the_order(amounts, chance) -> None:  # type: ignore[no-untyped-def]
    """Calls add up to the same totals in any order, and to the same as their units do."""
    calls = [
        make_call(input_tokens=given_, output_tokens=got, input_cost=price, output_cost=price * 2, duration=0.0)
        for given_, got, price in amounts
    ]
    shuffled = chance.sample(calls, len(calls))
    totals = totals_of(calls)
    assert totals == totals_of(shuffled)
    assert to_units(totals.input_cost) == sum(to_units(price) for _, _, price in amounts)


def test_what_a_provider_never_told_adds_nothing() -> None:
    """A call without usage and price counts as a call and changes no sum and no set of currencies."""
    unknown = make_call(
        input_tokens=None, output_tokens=None, input_cost=None, output_cost=None, currency=None, duration=0.25
    )
    assert totals_of([unknown]) == Totals(calls=1, duration=0.25)
    assert totals_of([unknown, make_call()]).currencies == {"USD"}
