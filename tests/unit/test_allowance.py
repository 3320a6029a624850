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
    longest_answer,
    most_of_call,
    need_from_document,
    need_of_call,
    need_to_document,
    seen_from_document,
    seen_to_document,
    spent_of,
)

PRICES = Prices(tokens=1000, currency="USD", input=Decimal(1), output=Decimal(10))
NEEDS = st.builds(Need, st.integers(0, 9), st.integers(0, 500), st.decimals(0, 3, places=4))
CAPS = st.none() | st.integers(0, 60)


@given(
    first=NEEDS,
    second=NEEDS,
    calls=CAPS,
    tokens=CAPS,
    amount=CAPS,
)
def test_what_fits(first: Need, second: Need, calls: int | None, tokens: int | None, amount: int | None) -> None:
    """Two needs fit together where no cap is exceeded by their sum."""
    money = None if amount is None else Money(Decimal(amount), "USD")
    whole = first + second
    caps = ((calls, whole.calls), (tokens, whole.tokens), (amount, whole.amount))
    budget = RunBudget(calls=calls, tokens=tokens, amount=money)
    assert fits(budget, first, second) == all(cap is None or used <= cap for cap, used in caps)


def test_the_most_that_a_call_can_take() -> None:
    """A token for every byte, the answer's limit, the dearest of the models; with a schema also what is sent back."""
    dear = Prices(tokens=1000, currency="USD", input=Decimal(2), output=Decimal(4), cached_input=Decimal(3))
    plain = most_of_call(1_000, 0, 100, Tariff(PRICES))
    assert (plain.calls, plain.tokens) == (1, 1_000 + 512 + 100)
    assert plain.amount == (Decimal(1_512) * 1 + Decimal(100) * 10) / 1000
    assert most_of_call(1_000, 0, 100, Tariff(PRICES, others=(dear,))).amount == (Decimal(1_512) * 3 + 400) / 1000
    assert most_of_call(1_000, 50, 100, Tariff(PRICES)).tokens > plain.tokens + 50 + 100


def test_the_longest_answer() -> None:
    """Within the model's limit; without one, or with a very high one, far more than was ever seen."""
    seen = Seen().learned(100, Totals(calls=1, input_tokens=10, output_tokens=1_000))
    assert longest_answer(Tariff(PRICES), None) == longest_answer(Tariff(PRICES, 128_000), None) == 4_096
    assert longest_answer(Tariff(PRICES, 500), seen) == 500
    assert longest_answer(Tariff(PRICES, 128_000), seen) == 8_000
    assert longest_answer(Tariff(PRICES), seen, brief=True) == 4_064


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


@given(need=NEEDS)
def test_needs_go_through_json(need: Need) -> None:
    """Unchanged, to the last place of the amount."""
    assert need_from_document(need_to_document(need)) == need
