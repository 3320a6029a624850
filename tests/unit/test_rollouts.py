"""Calls as jobs: the same question is the same job, and what it came to is read from the job."""

from dataclasses import replace
from typing import Any

import pytest

from engine.jobs.job import Call
from engine.jobs.states import JobState
from engine.records.runs import OPTIMIZER
from llm_optimizer.rollouts import (
    Leave,
    Owner,
    Role,
    RolloutSpec,
    is_awaited,
    job_id_of,
    job_of,
    paid,
    problem_of,
    response_of,
    unknown_calls,
    was_dropped,
)
from tests.support.factories import CLIENT, NOW, make_attempt, make_call, make_failure, make_job, metadata
from utilities.ids import is_object_id

OWNER = Owner(
    id="a" * 24,
    client_id=CLIENT,
    operation="optimize",
    planned_at=NOW,
    created_by=CLIENT,
    priority=100,
    reference={"runId": "a" * 24},
)


def spec(**fields: Any) -> RolloutSpec:
    return RolloutSpec(**{"role": Role.WORK, "model": "m", "instructions": "Do.", "request_data": {"a": 1}, **fields})


def test_the_same_question_is_the_same_job() -> None:
    """The id depends on all that is asked and on its owner, and on nothing that is only shown."""
    first = job_id_of(OWNER, spec())
    assert is_object_id(first)
    assert job_id_of(OWNER, spec(request_data={"a": 1}, reference={"step": 4})) == first
    changes: list[dict[str, Any]] = [
        {"role": Role.EVAL},
        {"model": "n"},
        {"instructions": "Do!"},
        {"prompts": ("p",)},
        {"request_data": {"a": 2}},
        {"temperature": 0.5},
        {"response_format": "json"},
        {"tag": "again"},
    ]
    others = {job_id_of(OWNER, spec(**change)) for change in changes}
    assert len({first, *others, job_id_of(replace(OWNER, id="b" * 24), spec())}) == len(changes) + 2


def test_the_job_is_an_ordinary_one() -> None:
    """It carries its text, belongs to the client, and says what it is for."""
    job = job_of(OWNER, spec(reference={"step": 4}), NOW)
    assert (job.client_id, job.operation, job.priority, job.instructions) == (CLIENT, "optimize", 100, "Do.")
    assert job.client_reference == {"runId": "a" * 24, "role": "work", "step": 4}
    assert (job.status, job.working_prompts) == (JobState.PENDING, ())
    assert is_awaited(job)


@pytest.mark.parametrize("status", [JobState.PROCESSED, JobState.CONSUMED, JobState.ERROR_CONSUMING])
def test_an_answer_is_one_whoever_has_taken_it(status: JobState) -> None:
    """A result counts also when somebody else has consumed or rejected it: it was paid for."""
    assert response_of(make_job(status=status, response_data={"text": "x"})) == {"text": "x"}


def test_what_has_no_answer_says_why() -> None:
    """An error, a cancellation, a deletion."""
    failed = make_job(status=JobState.ERROR_PROCESSING, failure=make_failure())
    assert response_of(failed) is None
    assert make_failure().error_type in problem_of(failed)
    canceled = make_job(status=JobState.CANCELED)
    assert "CANCELED" in problem_of(canceled)
    assert "deleted" in problem_of(None)
    assert not was_dropped(canceled)
    assert was_dropped(replace(canceled, metadata=metadata().touched(NOW, OPTIMIZER)))


def test_refused_calls_cost_nothing() -> None:
    """Calls that a provider refused are no calls of a budget; those whose answer was lost are."""

    def call(outcome: str, tokens: int | None) -> Call:
        return make_call(outcome=outcome, input_tokens=tokens, output_tokens=tokens)

    calls = (call("ok", 5), call("error", None), call("unknown", None), call("error", 7))
    job = make_job(ledger=(make_attempt(1, calls=calls), replace(make_attempt(2), outcome="lease_lost", calls=())))
    assert paid(job).calls == 3
    assert unknown_calls(job) == (1, 1)


def test_a_job_may_make_so_many_calls() -> None:
    """Those that may have cost something count, also one that a lost attempt may have made; refused ones do not."""
    job = job_of(OWNER, spec(), NOW, Leave(calls=3, output=70))
    assert (job.most_calls, job.most_output) == (3, 70)
    refused, lost = make_call(outcome="error", input_tokens=None, output_tokens=None), make_attempt(2)
    ledger = (make_attempt(1, calls=(make_call(), refused)), replace(lost, outcome="lease_lost", calls=()))
    job = replace(job, ledger=ledger)
    assert job.may_call([refused])
    assert not job.may_call([refused, make_call(outcome="unknown", input_tokens=None, output_tokens=None)])
    assert replace(job, most_calls=None).may_call([make_call()] * 9)
