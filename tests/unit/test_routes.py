"""Loops through fallbacks and targets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.records.routes import loop_through
from engine.records.values import Model, Target
from tests.support.factories import make_model

NAMES = "abcde"


def models(ways: dict[str, str]) -> list[Model]:
    """Models of one letter each, with their fallbacks."""
    return [make_model(id=name, name=name, fallbacks=tuple(following)) for name, following in ways.items()]


@pytest.mark.parametrize(
    ("ways", "loop"),
    [
        ({"a": ""}, None),
        ({"a": "a"}, "aa"),
        ({"a": "b", "b": "a"}, "aba"),
        ({"a": "bc", "b": "c", "c": "d", "d": "a"}, "acda"),
        ({"a": "bc", "b": "d", "c": "d", "d": ""}, None),
        ({"a": "x"}, None),
        ({"a": "b", "b": "c", "c": "b"}, None),
    ],
)
def test_a_loop_is_the_shortest_way_back(ways: dict[str, str], loop: str | None) -> None:
    """The names on the shortest way from the changed model back to it; loops that others have are not its own."""
    first, *others = models(ways)
    assert loop_through(others, first) == (None if loop is None else tuple(loop))


def test_targets_lead_on_like_fallbacks() -> None:
    """A loop through a router's target and another model's fallback is one."""
    router = make_model(name="r", sdk="router", targets=(Target("x"), Target("a", 5)))
    assert loop_through(models({"a": "r"}), router) == ("r", "a", "r")


def test_the_changed_model_replaces_the_stored_one() -> None:
    """What a model led to before the change counts no more, also under its old name."""
    before, b = models({"a": "b", "b": "c"})
    assert loop_through([before, b], make_model(id="a", name="c", fallbacks=("b",))) == ("c", "b", "c")
    assert loop_through([before, b], make_model(id="a", name="a")) is None


def test_models_of_one_name_count_as_one() -> None:
    """A younger model of a taken name may not close a loop either: it would once the oldest is deleted."""
    assert loop_through(models({"a": "", "b": "a"}), make_model(name="a", fallbacks=("b",))) == ("a", "b", "a")


@given(st.dictionaries(st.sampled_from(NAMES), st.text(NAMES, max_size=4), min_size=1))
def test_saving_only_what_closes_no_loop_leaves_none(ways: dict[str, str]) -> None:
    """Models that are saved one by one, each unless it closes a loop, can be put in an order without a way back."""
    saved: list[Model] = []
    for model in models(ways):
        if loop_through(saved, model) is None:
            saved.append(model)
    left = {model.name: set(model.fallbacks) for model in saved}
    while left:
        ends = {name for name, following in left.items() if not following & left.keys()}
        assert ends
        left = {name: following for name, following in left.items() if name not in ends}
