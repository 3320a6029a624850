"""What the formats of an answer accept, and that schemas cannot do harm."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine.errors import InvalidField
from llm_workers.answers import Answers, Misfit, Undecided, Unreadable
from tests.support.waiting import eventually
from utilities.hop import ThreadHop


@pytest.fixture
def answers() -> Iterator[Answers]:
    with ThreadPoolExecutor(2) as executor:
        reader = Answers(ThreadHop(executor), seconds=2.0)
        yield reader
        asyncio.run(reader.aclose())


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
    with pytest.raises(Undecided, match="refers to something outside itself"):
        read(answers, "{}", schema({"$ref": reference}))


def test_references_within(answers: Answers) -> None:
    """Definitions of its own are followed."""
    wanted = schema({"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}})

    assert read(answers, '{"a": 1}', wanted) == {"a": 1}
    with pytest.raises(Unreadable):
        read(answers, '{"a": "x"}', wanted)


def test_several_problems_are_told(answers: Answers) -> None:
    """Each with its place, the likeliest first, so that one more answer can mend them all; at most five."""
    number = {"type": "number"}
    wanted = schema({"type": "object", "properties": dict.fromkeys("abcdefgh", number), "required": ["a"]})

    with pytest.raises(Misfit) as caught:
        read(answers, '{"b": "x", "c": "x"}', wanted)
    with pytest.raises(Misfit) as many:
        read(answers, '{"a": "x", "b": "x", "c": "x", "d": "x", "e": "x", "f": "x"}', wanted)

    assert str(caught.value).count("breaks") == 3
    assert all(place in str(caught.value) for place in ("$ breaks 'required'", "$.b breaks 'type'", "$.c breaks"))
    assert str(many.value).count("breaks") == 5


def test_older_drafts(answers: Answers) -> None:
    """A schema that names its draft is read by that draft."""
    wanted = schema({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "integer"}]})

    with pytest.raises(Unreadable):
        read(answers, '["x"]', wanted)


def test_prepare_leaves_other_formats_alone(answers: Answers) -> None:
    """json and text need no preparation."""
    asyncio.run(answers.prepare("json"))
    asyncio.run(answers.prepare("text"))


def test_a_pattern_cannot_hold_up_the_service(answers: Answers) -> None:
    """A pattern that would be tried for years is given up; meanwhile the loop goes on, and so do other answers."""
    evil = schema({"type": "object", "properties": {"x": {"pattern": "^(a+)+$"}}})

    async def scenario() -> int:
        turns = 0
        reading = asyncio.ensure_future(answers.read('{"x": "' + "a" * 60 + '!"}', evil))
        while not reading.done():
            await asyncio.sleep(0.02)
            turns += 1
        with pytest.raises(Undecided, match="in time"):
            await reading
        assert await answers.read('{"x": "aa"}', evil) == {"x": "aa"}
        return turns

    assert asyncio.run(scenario()) > 20


def test_a_broken_answer_cannot_take_for_ever(answers: Answers) -> None:
    """A long text whose repair would take minutes is given up."""
    with pytest.raises(Undecided, match="in time"):
        read(answers, '{"a" ' * 20_000, "json")


def test_a_long_broken_answer_is_repaired(answers: Answers) -> None:
    """Length alone is no reason to give up."""
    text = '{"a": [' + "1, " * 2000 + "]"

    assert read(answers, text, "json") == {"a": [1] * 2000}


def test_the_reader_is_started_again(answers: Answers) -> None:
    """A process that was ended by somebody else is started anew, and the answer is read all the same."""
    wanted = schema({"type": "object"})
    assert read(answers, "{}", wanted) == {}
    process = answers._apart._process
    assert process is not None
    process.kill()
    process.wait(10)
    assert read(answers, '{"a": 1}', wanted) == {"a": 1}


def test_closing_waits_for_nothing() -> None:
    """What is being read when the reader is closed is given up at once."""
    with ThreadPoolExecutor(1) as executor:
        reader = Answers(ThreadHop(executor), seconds=60.0)

        async def scenario() -> None:
            reading = asyncio.ensure_future(reader.read('{"a" ' * 20_000, "json"))
            await asyncio.to_thread(eventually, lambda: reader._apart._process)
            await reader.aclose()
            with pytest.raises(Unreadable):
                await reading

        asyncio.run(asyncio.wait_for(scenario(), 10))
