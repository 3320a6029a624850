"""What a model's calls cost at most, whichever model answers in its place."""

from decimal import Decimal
from typing import Any

from engine.pricing import Prices
from engine.records.values import ROUTER, Model, Target
from llm_optimizer.stored_subjects import tariff_of
from tests.support.factories import make_model


def priced(name: str, price: int, **fields: Any) -> Model:
    prices = Prices(tokens=1000, currency="USD", input=Decimal(price), output=Decimal(price))
    return make_model(name=name, prices=prices, **fields)


def test_a_model_alone() -> None:
    """Its own prices and limit."""
    models = {"a": priced("a", 1, max_token=9), "b": priced("b", 2)}
    tariff = tariff_of("a", models)
    assert (tariff.prices, tariff.most_output, tariff.others) == (models["a"].prices, 9, ())


def test_fallbacks_of_fallbacks_count() -> None:
    """All that may answer: their prices, and the longest of their limits, none where one has none. Loops end."""
    models = {
        "a": priced("a", 1, max_token=9, fallbacks=("b", "gone")),
        "b": priced("b", 5, max_token=20, fallbacks=("c", "a")),
        "c": priced("c", 3, max_token=7),
    }
    tariff = tariff_of("a", models)
    assert (tariff.most_output, tariff.others) == (20, (models["b"].prices, models["c"].prices))
    models["c"] = priced("c", 3, max_token=None, max_completion_token=None)
    assert tariff_of("a", models).most_output is None


def test_a_router_costs_what_its_targets_do() -> None:
    """It has neither prices nor a limit of its own."""
    models = {
        "r": priced("r", 0, sdk=ROUTER, targets=(Target("a"), Target("b"))),
        "a": priced("a", 4, max_token=9),
        "b": priced("b", 6, max_token=5),
    }
    tariff = tariff_of("r", models)
    assert (tariff.most_output, tariff.others) == (9, (models["a"].prices, models["b"].prices))
