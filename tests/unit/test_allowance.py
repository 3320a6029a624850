"""What a run may still use: reserved before it is asked for, and never more than there is."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from engine.jobs.job import Totals
from engine.pricing import Prices
from engine.records.searches import RunBudget
from engine.records.values import Money
from llm_optimizer.allowance import (
    Need,
    Seen,
    Tariff,
    fits,
    how_many_fit,
    need_of_call,
    seen_from_document,
    seen_to_document,
    spent_of,
)

PRICES = Prices(tokens=1000, currency="USD", input=Decimal(1), output=Decimal(10))
NEEDS = st.builds(Need, st.integers(0, 9), st.integers(0, 500), st.decimals(0, 3, places=4))
CAPS = st.none() | st.integers(0, 60)


@given(needs=st.lists(NEEDS, max_size=30), spent=NEEDS, calls=CAPS, tokens=CAPS, amount=CAPS)
def test_what_is_admitted_fits(
    needs: list[Need], spent: Need, calls: int | None, tokens: int | None, amount: int | None
) -> None:
    """As many as fit, none of which goes over any cap, and not one less than would have fitted."""
    money = None if amount is None else Money(Decimal(amount), "USD")
    budget = RunBudget(calls=calls, tokens=None if tokens is None else tokens * 20, amount=money)
    count = how_many_fit(budget, spent, needs)
    taken = sum(needs[:count], Need())
    assert count == 0 or fits(budget, spent, taken)
    assert count == len(needs) or not fits(budget, spent, taken + needs[count])


def test_estimates_are_rather_high() -> None:
    """Before anything is known a call is expected to take more than it does; then what was seen is the guide."""
    first = need_of_call(4_000, Tariff(PRICES), None)
    assert first.tokens > 4_000 / 4 + 500
    assert first.amount == (Decimal(first.tokens - 2_048) * 1 + Decimal(2_048) * 10) / 1000
    seen = Seen().learned(4_000, Totals(calls=1, input_tokens=1_000, output_tokens=20))
    later = need_of_call(4_000, Tariff(PRICES), seen)
    assert 1_020 < later.tokens < first.tokens
    assert need_of_call(4_000, Tariff(PRICES, most_output=5), seen).tokens < later.tokens


def test_figures_only_rise() -> None:
    """What was seen at most stays; it goes through JSON unchanged."""
    seen = Seen().learned(100, Totals(calls=2, input_tokens=80, output_tokens=30))
    assert (seen.ratio, seen.answer) == (0.4, 15)
    assert seen.learned(100, Totals(calls=1, input_tokens=1, output_tokens=1)) == seen
    assert seen_from_document(seen_to_document({"work m": seen})) == {"work m": seen}


def test_spent_adds_all_roles_up() -> None:
    """Calls, tokens both ways, and both costs."""
    totals = Totals(calls=2, input_tokens=3, output_tokens=4, input_cost=Decimal("0.1"), output_cost=Decimal("0.2"))
    assert spent_of([totals, totals]) == Need(4, 14, Decimal("0.6"))
