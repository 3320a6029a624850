"""How clientReference values are compared: by exact value, whatever their type."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidField
from engine.jobs.references import canonical_value, filter_texts, flatten, reference_text

NUMBERS = st.integers() | st.floats(-(2.0**62), 2.0**62)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text()
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: not name.startswith("$")
)


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        (5, "5"),
        ("5", "5"),
        (5.0, "5"),
        (5, "5.0"),
        (0.5, "0.5"),
        ("0.50", "0.5"),
        (1e3, "1000"),
        (-0.0, "0"),
        (True, "true"),
        ("true", "true"),
        (None, "null"),
        ("ab c=d", "ab c=d"),
        (10**30, str(10**30)),
        (1e300, "1e300"),
    ],
)
def test_equal_values_match(stored: Any, asked: str) -> None:
    """A filter's text finds the value it spells, as a number, a word of JSON's, or a string."""
    assert filter_texts({"field": asked}) == flatten({"field": stored})


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        (5, "50"),
        (5, "5 "),
        ("abc", "ABC"),
        ("abc", "ab"),
        (True, "1"),
        (None, ""),
        ("007", "7"),
        ("1.", "1"),
        (5, "+5"),
    ],
)
def test_other_values_do_not(stored: Any, asked: str) -> None:
    """Matching is exact: no prefix, no other case, no guess at what a text with odd digits means."""
    assert filter_texts({"field": asked}) != flatten({"field": stored})


def test_paths_lead_into_objects_and_not_into_arrays() -> None:
    """A nested value is named by its dotted path; a list's elements and empty objects are not searchable."""
    reference = {"a": {"b": {"c": 1}}, "tags": ["x", "y"], "none": {}, "d": "e"}
    assert flatten(reference) == ("a.b.c=1", "d=e")
    assert flatten(None) == flatten({}) == ()


def test_equal_texts_are_listed_once() -> None:
    """`{"a.b": 1}` and `{"a": {"b": 1}}` are one text."""
    assert flatten({"a.b": 1, "a": {"b": "1"}}) == ("a.b=1",)


def test_long_texts_are_hashed() -> None:
    """A text longer than an index takes is replaced by a hash, which two texts share only if they are the same."""
    long = "x" * 300
    assert reference_text("a", long).startswith("sha256:")
    assert reference_text("a", long) == reference_text("a", long)
    assert len({reference_text("a", long), reference_text("b", long), reference_text("a", long + "x")}) == 3
    assert reference_text("a", "x" * 198) == "a=" + "x" * 198


def test_numbers_too_long_to_be_counted_stay_texts() -> None:
    """A number of a thousand digits costs no conversion and still finds itself."""
    digits = "9" * 1000
    assert canonical_value(digits) == digits
    assert flatten({"n": digits}) == filter_texts({"n": digits})
    assert len(flatten({"n": 10**450})) == 1


def test_names_that_no_field_has() -> None:
    """A name that starts with `$` or holds a NUL is refused by name; an empty one is ignored."""
    for name in ("$where", "a\0b"):
        with pytest.raises(InvalidField, match="clientReference") as refusal:
            filter_texts({name: "1"})
        assert "\0" not in str(refusal.value)
    assert filter_texts({"": "1", "a": "2"}) == ("a=2",)


@given(reference=st.dictionaries(NAMES, st.recursive(SCALARS, lambda inner: st.dictionaries(NAMES, inner, max_size=3))))
def test_what_was_stored_is_found(reference: dict[str, Any]) -> None:
    """Whatever is stored, a filter that spells its values as JSON does finds it."""
    texts = flatten(reference)
    for name, value in reference.items():
        if not isinstance(value, dict):
            spelled = value if isinstance(value, str) else json.dumps(value)
            assert set(filter_texts({name: spelled})) <= set(texts)


@given(NUMBERS, NUMBERS)
def test_numbers_match_by_value(first: float, second: float) -> None:
    """Two numbers share a text exactly when they are equal, whole or not; so do a number and its spelling."""
    assert (canonical_value(first) == canonical_value(second)) == (first == second)
    assert canonical_value(json.dumps(first)) == canonical_value(first)


@given(st.text(), st.text())
def test_words_match_by_letter(first: str, second: str) -> None:
    """Two texts that are no numbers share a text exactly when they are the same."""
    words = [f"{text}!" for text in (first, second)]
    assert (canonical_value(words[0]) == canonical_value(words[1])) == (first == second)
