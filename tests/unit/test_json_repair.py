"""Which texts count as JSON, which can be repaired, and which are refused."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilities.json_repair import repaired_json, strict_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        (" \n[1, 2]\n", [1, 2]),
        ("42", 42),
        ('"text"', "text"),
        ("null", None),
        ('\ufeff{"a": 1}', {"a": 1}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ("```\n[1]\n```", [1]),
        ('{"code": "```x```"}', {"code": "```x```"}),
    ],
)
def test_json(text: str, value: Any) -> None:
    """JSON as it is, with blanks, a byte order mark or one code fence around it."""
    assert strict_json(text) == value


@pytest.mark.parametrize("text", ["", "  ", "yes", "{'a': 1}", '{"a": 1} {"b": 2}', "NaN", '{"a": 1,}', "``` ```"])
def test_no_json(text: str) -> None:
    """Anything else is refused, not guessed at."""
    with pytest.raises(ValueError):
        strict_json(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1, "b": [1, 2,], \'c\': 3', {"a": 1, "b": [1, 2], "c": 3}),
        ("{'a': True, 'b': None}", {"a": True, "b": None}),
        ("{a: 1}", {"a": 1}),
        ('{"a": "cut o', {"a": "cut o"}),
        ("[1, 2,", [1, 2]),
        ('Here:\n```json\n{"a": 1}\n```\nThere.', {"a": 1}),
        ('Sure! {"a": {"b": [1]}} Hope it helps.', {"a": {"b": [1]}}),
        ('See [1] and [2]: {"a": 1}', {"a": 1}),
    ],
)
def test_repairs(text: str, value: Any) -> None:
    """Missing and superfluous commas, other quotes, Python's words, cut ends, words around."""
    assert repaired_json(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "I would rather talk.", "The set {x} is good.", "See [1] and [2].", "{...}", "}{", "[", "{", "[" * 5000],
)
def test_words_are_no_value(text: str) -> None:
    """Where no object or list is spelled out, nothing is made up."""
    with pytest.raises(ValueError):
        repaired_json(text)


@pytest.mark.parametrize("open_", ["[", '{"a":'])
def test_too_deep(open_: str) -> None:
    """What could not be stored for its depth is refused, also when it is valid JSON."""
    close = "]" if open_ == "[" else "}"
    text = open_ * 240 + "1" + close * 240
    for parse in (strict_json, repaired_json):
        with pytest.raises(ValueError):
            parse(text)


def test_as_deep_as_can_be_stored() -> None:
    """Two hundred levels are fine, and brackets in strings count for nothing."""
    assert strict_json("[" * 200 + "]" * 200)
    assert strict_json('{"a": "' + "[" * 5000 + '"}')


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    """Any JSON value comes back equal."""
    assert strict_json(orjson.dumps(value).decode()) == value


@given(st.text(alphabet="{}[]\":,'` \\nabc01.eE-+tru", max_size=60))
def test_any_text_is_a_storable_value_or_refused(text: str) -> None:
    """Whatever a model writes: a value that can be written as JSON, or ValueError, nothing else."""
    for parse in (strict_json, repaired_json):
        try:
            orjson.dumps(parse(text))
        except ValueError:
            continue
