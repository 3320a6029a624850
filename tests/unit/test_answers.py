"""What the formats of an answer accept, and that schemas cannot do harm."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine.errors import InvalidField
from llm_workers.answers import Answers, Unreadable
from utilities.hop import ThreadHop


@pytest.fixture
def answers() -> Iterator[Answers]:
    with ThreadPoolExecutor(1) as executor:
        yield Answers(ThreadHop(executor))


def schema(document: Any) -> dict[str, Any]:
    return {"type": "json_schema", "schema": document}


def read(answers: Answers, text: str, wanted: Any) -> dict[str, Any]:
    return asyncio.run(answers.read(text, wanted))


@pytest.mark.parametrize(("text", "value"), [("[1]", [1]), ("null", None), ("true", True), ('"x"', "x")])
def test_a_value_that_is_no_object(answers: Answers, text: str, value: Any) -> None:
    """It is stored under `value`, so that a result is always an object."""
    assert read(answers, text, "json") == {"value": value}


def test_the_bare_value_meets_the_schema(answers: Answers) -> None:
    """A schema for a list is about the list itself, not about the object it is stored in."""
    wanted = schema({"type": "array", "items": {"type": "integer"}})

    assert read(answers, "[1, 2]", wanted) == {"value": [1, 2]}
    with pytest.raises(Unreadable, match=r"\$\[1\] breaks 'type'"):
        read(answers, '[1, "two"]', wanted)


def test_a_problem_shows_nothing_of_the_answer(answers: Answers) -> None:
    """It names place and rule: answers may hold what must not be in a log."""
    with pytest.raises(Unreadable) as caught:
        read(answers, '{"name": "confidential"}', schema({"properties": {"name": {"type": "integer"}}}))

    assert "confidential" not in str(caught.value)
    assert "$.name" in str(caught.value)


def test_a_repaired_answer_meets_the_schema_too(answers: Answers) -> None:
    """Repair comes first, then the schema."""
    wanted = schema({"required": ["a"]})

    assert read(answers, "Well: {'a': 1}", wanted) == {"a": 1}
    with pytest.raises(Unreadable):
        read(answers, "Well: {'b': 1}", wanted)


@pytest.mark.parametrize("document", [{"type": 5}, {"required": "a"}, {"properties": []}, {"type": "thing"}])
def test_what_is_no_schema(answers: Answers, document: Any) -> None:
    """It is found out before a call, and said."""
    with pytest.raises(InvalidField, match="responseFormat"):
        asyncio.run(answers.prepare(schema(document)))


@pytest.mark.parametrize("reference", ["http://127.0.0.1:9/schema.json", "file:///etc/passwd", "#/nowhere", "#"])
def test_references_lead_nowhere_else(answers: Answers, reference: str) -> None:
    """A schema cannot make the service fetch anything, nor run for ever: the answer just does not match."""
    with pytest.raises(Unreadable, match="refers to something outside itself"):
        read(answers, "{}", schema({"$ref": reference}))


def test_references_within(answers: Answers) -> None:
    """Definitions of its own are followed."""
    wanted = schema({"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}})

    assert read(answers, '{"a": 1}', wanted) == {"a": 1}
    with pytest.raises(Unreadable):
        read(answers, '{"a": "x"}', wanted)


def test_older_drafts(answers: Answers) -> None:
    """A schema that names its draft is read by that draft."""
    wanted = schema({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "integer"}]})

    with pytest.raises(Unreadable):
        read(answers, '["x"]', wanted)


def test_prepare_leaves_other_formats_alone(answers: Answers) -> None:
    """json and text need no preparation."""
    asyncio.run(answers.prepare("json"))
    asyncio.run(answers.prepare("text"))
