"""What a model is told of an answer that missed its schema."""

import pytest

from llm_workers.prompting import correction

KIB = 1024


def wanted(size: int) -> dict[str, object]:
    return {"type": "json_schema", "schema": {"title": "x" * size}}


@pytest.mark.parametrize("letter", ["a", "ä", "漢", "😀"])
def test_a_long_answer_is_quoted_in_part(letter: str) -> None:
    """At most 64 KiB of it, whatever its characters take, and none of them cut in two."""
    said, _ = correction(letter * 100_000, "it is too long", wanted(1))

    assert 64 * KIB - 4 < len(said.text.encode()) <= 64 * KIB
    assert set(said.text) == {letter}


@pytest.mark.parametrize("answer", ["", " \n"])
def test_an_empty_answer_is_quoted_as_such(answer: str) -> None:
    """Vendors refuse messages without a text."""
    said, asked = correction(answer, "the answer is not JSON", wanted(1))

    assert (said.role, said.text) == ("assistant", "(nothing)")
    assert asked.role == "user"
    assert "the answer is not JSON" in asked.text


def test_half_a_character_is_left_out() -> None:
    """It could not be sent."""
    said, _ = correction("a\ud800b", "it is odd", wanted(1))

    assert said.text == "ab"


@pytest.mark.parametrize(("size", "shown"), [(100, True), (20 * KIB, False)])
def test_the_schema_is_repeated_where_it_is_short(size: int, shown: bool) -> None:
    """A vendor that takes no schema has shown it to nobody; a long one would cost more than it helps."""
    _, asked = correction("7", "it is a number", wanted(size))

    assert ("x" * size in asked.text) is shown
