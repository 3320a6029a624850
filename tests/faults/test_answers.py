"""Answers that are none, and answers beside their schema: faults 17 and 18 of docs/promises.md."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from engine.jobs.job import Job
from engine.jobs.states import JobState
from tests.support.backends import Database
from tests.support.customer import Customer, serving
from tests.support.fake_provider import Rule, fault
from tests.support.invariants import check
from tests.support.service import Replica, one_of_each

ANSWERED = Decimal(11) / 1000 * 1 + Decimal(7) / 1000 * 2
"""What an answer of the fake provider costs at the customer's model."""

SCHEMA = {"type": "object", "properties": {"score": {"type": "integer"}}, "required": ["score"]}
WANTED = {"type": "json_schema", "schema": SCHEMA}
BESIDE = '{"score":"high"}'

on_each_kind = pytest.mark.parametrize("backend", one_of_each(), indirect=True)


def _posted(customer: Customer, replica: Replica, *texts: str, **fields: Any) -> dict[str, Job]:
    """The jobs by their texts, once they have ended."""
    return dict(zip(texts, customer.wait(customer.post(replica, *texts, **fields)), strict=True))


def _calls(job: Job) -> list[tuple[str, str | None, Decimal | None]]:
    """Outcome, error and cost of every call on the ledger."""
    return [
        (call.outcome, call.error_type, None if call.input_cost is None else call.input_cost + (call.output_cost or 0))
        for attempt in job.ledger
        for call in attempt.calls
    ]


def _failed(job: Job) -> tuple[str, str]:
    """The type of error and the raw text that a job in error shows."""
    assert job.status is JobState.ERROR_PROCESSING
    assert job.failure is not None
    return job.failure.error_type, job.failure.raw or ""


@on_each_kind
def test_answers_that_cannot_be_used(database: Database, tmp_path: Path) -> None:
    """Fault 17: a refusal, a filter, a token limit and words in the place of JSON are errors of their own after one
    call, which is booked; an answer cut in half and one without a choice may get better and are retried within the
    maximum, the half one's cost unknown. The raw text is kept of all, and shown."""
    with serving(database, tmp_path) as (customer, [replica]):
        customer.employ(replica)
        customer.fake.add(Rule(fault("truncated"), containing="cut once", times=1))
        hopeless = {
            "[[length]]": ("AnswerCutOff", '{"answer": "this goes on and o'),
            "[[content_filter]]": ("ContentFiltered", '{"answer": "filt'),
            "[[refusal]]": ("AnswerRefused", "I cannot help with that."),
            "[[sentence]]": ("UnusableAnswer", "I would rather talk about the weather today."),
        }

        ended = _posted(customer, replica, "cut once", "[[truncated]]", "[[no_choices]]", *hopeless, maxAttempts=2)

        for text, (error_type, raw) in hopeless.items():
            assert _failed(ended[text]) == (error_type, raw)
            assert _calls(ended[text]) == [("error", error_type, ANSWERED)]
        lost, told = ("unknown", "TransientProviderError", None), ("error", "TransientProviderError", ANSWERED)
        assert _failed(ended["[[truncated]]"])[1].startswith('{"id":')
        assert _failed(ended["[[no_choices]]"])[1].startswith('{"id":')
        assert _calls(ended["[[truncated]]"]) == [lost, lost]
        assert _calls(ended["[[no_choices]]"]) == [told, told]
        assert ended["cut once"].status is JobState.PROCESSED
        assert _calls(ended["cut once"]) == [lost, ("ok", None, ANSWERED)]
        shown = customer.call(replica, "GET", f"/jobs/{ended['[[refusal]]'].id}")
        assert shown["errorData"]["errorType"] == "AnswerRefused"
        assert shown["errorData"]["failedResponseData"] == "I cannot help with that."
        assert shown["processingMetrics"]["totalTokens"] == 18
        check(customer)


@on_each_kind
def test_answers_beside_their_schema(database: Database, tmp_path: Path) -> None:
    """Fault 18: an answer that misses its schema is sent back with what is wrong, within one attempt and as often as
    SCHEMA_REASKS says, each call booked; then it is an error with the raw text, and is not retried."""
    with serving(database, tmp_path, schema_reasks=2) as (customer, [replica]):
        customer.employ(replica)
        customer.fake.add(
            Rule(fault("text", content=BESIDE), containing="missed once", times=1),
            Rule(fault("text", content=BESIDE), containing="missed always"),
        )

        ended = _posted(customer, replica, "missed once", "missed always", responseFormat=WANTED)

        missed = ("error", "AnswerMisfits", ANSWERED)
        assert ended["missed once"].response_data == {"answer": "ok", "score": 1}
        assert _calls(ended["missed once"]) == [missed, ("ok", None, ANSWERED)]
        assert _failed(ended["missed always"]) == ("AnswerMisfits", BESIDE)
        assert _calls(ended["missed always"]) == [missed] * 3
        assert [job.attempts for job in ended.values()] == [0, 1]
        (again,) = [call for call in customer.fake.seen.calls if call.turns and "missed once" in call.user]
        assert again.turns[0] == ("assistant", BESIDE)
        assert "$.score breaks 'type'" in again.turns[1][1]
        check(customer)
