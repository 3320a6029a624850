"""Answers that are to match a schema: checked, sent back when they miss it, and never asked for in vain."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from engine.errors import CallsUsedUp, InvalidField, LeaseLost
from engine.jobs.held import Held
from engine.llm import AnswerMisfits, UnusableAnswer
from engine.pricing import Prices
from tests.support.completing import Completing, completing
from tests.support.fake_provider import Rule, fault

PRICES = Prices(tokens=1000, currency="EUR", input=Decimal(2), output=Decimal(5))
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
WANTED = {"type": "json_schema", "schema": SCHEMA}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Completing]:
    with completing(tmp_path) as made:
        yield made


def test_schema(lab: Completing) -> None:
    """A schema is sent and the answer checked against it."""
    lab.model()

    done = lab.run(lab.job(response_format=WANTED))

    assert done.result == {"answer": "ok", "score": 1}
    assert lab.fake.seen.calls[0].body["response_format"]["json_schema"]["schema"] == SCHEMA


def test_an_answer_beside_the_schema(lab: Completing) -> None:
    """Without re-asking it is an error with the raw text, naming the place and the rule but not what was answered."""
    lab.model("m!list")

    done = lab.run(lab.job(model="m!list", response_format=WANTED), reasks=0)

    assert type(done.error) is AnswerMisfits
    assert "$ breaks 'type'" in str(done.error)
    assert done.error.raw == '["a", "b"]'
    assert [call.input_tokens for call in done.calls] == [11]


def test_a_job_that_may_make_one_call(lab: Completing) -> None:
    """It is not asked again, and its one call is on the ledger."""
    lab.model("m!list")

    done = lab.run(lab.job(model="m!list", response_format=WANTED, most_calls=1), reasks=2)

    assert type(done.error) is CallsUsedUp
    assert [call.error_type for call in done.calls] == ["AnswerMisfits"]
    assert len(lab.fake.seen.calls) == 1


@pytest.mark.parametrize(
    ("content", "error_type", "problem"),
    [
        ('{"answer": 7}', "AnswerMisfits", "$.answer breaks 'type'"),
        ("Seven, I think.", "UnusableAnswer", "the answer is not JSON"),
        ("", "UnusableAnswer", "the answer is not JSON"),
    ],
)
def test_an_answer_that_is_mended(lab: Completing, content: str, error_type: str, problem: str) -> None:
    """The answer goes back with what was wrong and with the schema; the second call has an id of its own, and both
    are booked."""
    lab.model(prices=PRICES)
    lab.fake.add(Rule(fault("text", content=content), times=1))

    done = lab.run(lab.job(response_format=WANTED))

    assert done.result == {"answer": "ok", "score": 1}
    first, second = done.calls
    assert (first.outcome, first.error_type, first.input_cost) == ("error", error_type, Decimal("0.022"))
    assert (second.step, second.outcome, second.input_cost) == ("work", "ok", Decimal("0.022"))
    asked, again = lab.fake.seen.calls
    assert asked.turns == ()
    assert [role for role, _ in again.turns] == ["assistant", "user"]
    assert again.turns[0][1] == (content or "(nothing)")
    assert problem in again.turns[1][1]
    assert '"required"' in again.turns[1][1]
    assert again.attempt_id == f"{asked.attempt_id}-r1"
    assert again.system == asked.system


@pytest.mark.parametrize("reasks", [0, 2])
def test_an_answer_that_is_never_mended(lab: Completing, reasks: int) -> None:
    """When the re-asks are used up the error stands, with the last raw text, and every call is booked."""
    lab.model("m!list")

    done = lab.run(lab.job(model="m!list", response_format=WANTED), reasks=reasks)

    assert type(done.error) is AnswerMisfits
    assert done.error.raw == '["a", "b"]'
    assert [(call.outcome, call.error_type) for call in done.calls] == [("error", "AnswerMisfits")] * (reasks + 1)
    assert set(lab.fake.seen.by_attempt.values()) == {1}
    assert len(lab.fake.seen.by_attempt) == reasks + 1
    assert all(len(call.turns) <= 2 for call in lab.fake.seen.calls)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("length", WANTED), ("content_filter", WANTED), ("refusal", WANTED), ("sentence", "json")],
)
def test_what_is_not_asked_again(lab: Completing, kind: str, wanted: Any) -> None:
    """A refusal, a filter and a token limit would come again; without a schema nobody can say what would be better."""
    lab.model(f"m!{kind}")

    done = lab.run(lab.job(model=f"m!{kind}", response_format=wanted))

    assert isinstance(done.error, UnusableAnswer)
    assert len(done.calls) == 1


def test_a_schema_that_nothing_can_be_held_to_is_not_asked_again(lab: Completing) -> None:
    """Where it is the schema that cannot be applied, another answer would be paid for in vain."""
    endless = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    lab.model()

    done = lab.run(lab.job(response_format={"type": "json_schema", "schema": endless}))

    assert type(done.error) is UnusableAnswer
    assert len(done.calls) == 1


def test_a_lease_that_runs_out_before_the_second_call(lab: Completing) -> None:
    """No answer is asked for again once the lease is no longer certain; the first call is on the ledger."""
    lab.model("m!list")
    lab.fake.hold()

    async def expire(attempt: "asyncio.Future[Any]", work: Held) -> None:
        await asyncio.to_thread(lab.fake.seen.wait_until, lambda seen: seen.in_flight == 1)
        work.good_until = lab.clock.monotonic() - 1
        lab.fake.release()

    job = lab.claimed(lab.job(model="m!list", response_format=WANTED))
    done = asyncio.run(lab.handled(job, meanwhile=expire))

    assert isinstance(done.error, LeaseLost)
    assert [call.error_type for call in done.calls] == ["AnswerMisfits"]


def test_a_schema_that_is_none(lab: Completing) -> None:
    """It is refused before a call is paid for."""
    lab.model()

    done = lab.run(lab.job(response_format={"type": "json_schema", "schema": {"type": "nonsense"}}))

    assert isinstance(done.error, InvalidField)
    assert lab.fake.seen.total == 0
    assert done.calls == ()
