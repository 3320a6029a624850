"""Evaluation and meta step: what they are given, what becomes of their answers and failures, what they cost."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.errors import LeaseLost
from engine.jobs.held import Held
from engine.jobs.job import Job
from engine.jobs.outcome import Expired, Settlement
from engine.jobs.queue import Page
from engine.jobs.states import JobState
from engine.llm import Timeouts
from engine.records.store import Where
from engine.records.values import Prompt, PromptStatus
from tests.support.completing import Completing, completing
from tests.support.factories import CLIENT
from tests.support.fake_provider import Rule, fault

EVALUATION = "Judge it."
META = "Improve it."


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Completing]:
    with completing(tmp_path) as made:
        made.model("m")
        made.model("judge")
        made.model("writer")
        yield made


def full_job(lab: Completing, *prompts: Prompt, **fields: Any) -> Job:
    """With evaluation and meta step."""
    evaluation, meta = lab.prompt(EVALUATION), lab.prompt(META)
    further = {"eval_prompt": evaluation.id, "eval_model": "judge", "meta_prompt": meta.id, "meta_model": "writer"}
    return lab.job(*prompts, **{**further, **fields})


def say(lab: Completing, model: str, content: str) -> None:
    lab.fake.add(Rule(fault("text", content=content), model=model))


def suggestions(lab: Completing) -> list[Prompt]:
    return [prompt for prompt in lab.storage.prompts.find(Where(), Page()) if prompt.name.startswith("optimized_")]


def test_evaluation(lab: Completing) -> None:
    """The evaluation is given request and result; its answer as an object is the evalResult, its call is booked."""
    say(lab, "judge", '{"score": 9}')

    done = lab.run(full_job(lab, request_data={"q": 1}, meta_prompt=None, meta_model=None))

    assert done.completed is not None
    assert done.completed.eval_result == {"score": 9}
    assert done.completed.suggested_prompt_id is None
    call = lab.fake.seen.calls[1]
    assert call.system == EVALUATION
    assert json.loads(call.user) == {"request": {"q": 1}, "result": {"answer": "ok", "score": 1}}
    assert [(each.step, each.model, each.outcome) for each in done.calls] == [
        ("work", "m", "ok"),
        ("eval", "judge", "ok"),
    ]
    assert all(each.input_cost for each in done.calls)


@pytest.mark.parametrize(("content", "result"), [("[1, 2]", [1, 2]), ("7", 7)])
def test_an_evaluation_that_is_no_object(lab: Completing, content: str, result: Any) -> None:
    """A list or scalar is kept under `value`."""
    say(lab, "judge", content)

    done = lab.run(full_job(lab))

    assert done.completed is not None
    assert done.completed.eval_result == {"value": result}


@pytest.mark.parametrize(
    ("kind", "error_type", "calls"),
    [
        ("sentence", "UnusableAnswer", 1),
        ("key", "ProviderRefusedKey", 1),
        ("quota", "QuotaExhausted", 1),
        ("status,code=500", "TransientProviderError", 3),
    ],
)
def test_a_failed_evaluation(lab: Completing, kind: str, error_type: str, calls: int) -> None:
    """The job is completed all the same, evalResult says what went wrong, every call of it is booked."""
    lab.model(f"judge!{kind}")

    done = lab.run(full_job(lab, eval_model=f"judge!{kind}"))

    assert done.completed is not None
    assert done.result == {"answer": "ok", "score": 1}
    assert done.completed.eval_result is not None
    assert done.completed.eval_result["errorType"] == error_type
    assert done.completed.eval_result["error"]
    assert [each.error_type for each in done.calls if each.step == "eval"] == [error_type] * calls
    assert lab.fake.seen.by_model["m"] == 1


@pytest.mark.parametrize("field", ["eval_prompt", "eval_model"])
def test_an_evaluation_whose_reference_is_gone(lab: Completing, field: str) -> None:
    """A deleted prompt or model of the evaluation does not cost the job its result."""
    done = lab.run(full_job(lab, **{field: "0" * 24}))

    assert done.completed is not None
    assert done.completed.eval_result is not None
    assert done.completed.eval_result["errorType"] == "UnknownReference"


def test_a_moody_evaluation_is_asked_again(lab: Completing) -> None:
    """A transient failure or a rate limit is waited for within the attempt: the paid work is not done twice."""
    lab.fake.add(Rule(fault("status", code=503), model="judge", times=1))
    lab.fake.add(Rule(fault("rate_limit", seconds=20), model="judge", times=1))

    done = lab.run(full_job(lab))

    assert done.completed is not None
    assert done.completed.eval_result == {"answer": "ok", "score": 1}
    assert [each.outcome for each in done.calls if each.step == "eval"] == ["error", "error", "ok"]
    assert lab.fake.seen.by_model["m"] == 1
    assert lab.pauses[0] <= 1
    assert lab.pauses[1] == 20
    assert len(lab.fake.seen.by_attempt) == len(done.calls)


def test_a_long_rate_limit_is_not_waited_for(lab: Completing) -> None:
    """Over a minute the evaluation is given up: the worker's slot is worth more."""
    lab.fake.add(Rule(fault("rate_limit", seconds=600), model="judge"))

    done = lab.run(full_job(lab))

    assert done.completed is not None
    assert done.completed.eval_result is not None
    assert done.completed.eval_result["errorType"] == "RateLimited"
    assert lab.pauses == []


def test_suggestion(lab: Completing) -> None:
    """The meta step is given evaluation, prompt texts and result; its answer is a private draft of the job's client."""
    say(lab, "judge", '{"score": 9}')
    say(lab, "writer", "  Write better.\n")
    first, second = lab.prompt("One.", name="summary", type="SYSTEM"), lab.prompt("Two.")

    done = lab.run(full_job(lab, first, second))

    assert done.completed is not None
    prompt = lab.storage.prompts.get(done.completed.suggested_prompt_id or "")
    assert prompt is not None
    assert prompt.text == "Write better."
    assert prompt.name.startswith("optimized_summary_20")
    assert (prompt.status, prompt.is_public, prompt.client_id) == (PromptStatus.DRAFT, False, CLIENT)
    assert (prompt.type, prompt.version) == ("SYSTEM", 1)
    call = lab.fake.seen.calls[2]
    assert call.system == META
    assert json.loads(call.user) == {
        "evaluation": {"score": 9},
        "prompts": ["One.", "Two."],
        "result": {"answer": "ok", "score": 1},
    }
    assert [each.step for each in done.calls] == ["work", "eval", "meta"]


def test_suggestion_without_evaluation(lab: Completing) -> None:
    """A job may have a meta step alone; it is told that there is no evaluation."""
    done = lab.run(full_job(lab, eval_prompt=None, eval_model=None))

    assert done.completed is not None
    assert done.completed.eval_result is None
    assert done.completed.suggested_prompt_id is not None
    assert json.loads(lab.fake.seen.calls[1].user)["evaluation"] is None


@pytest.mark.parametrize("kind", ["empty", "refusal", "key"])
def test_a_failed_meta_step(lab: Completing, kind: str) -> None:
    """The job is completed without a suggestion, the call is booked."""
    lab.model(f"writer!{kind}")

    done = lab.run(full_job(lab, meta_model=f"writer!{kind}"))

    assert done.completed is not None
    assert done.completed.eval_result == {"answer": "ok", "score": 1}
    assert done.completed.suggested_prompt_id is None
    assert done.calls[-1].step == "meta"
    assert suggestions(lab) == []


def test_a_repeated_attempt_leaves_one_suggestion(lab: Completing) -> None:
    """When the attempt is lost after the draft was stored, the next one replaces it."""
    say(lab, "writer", "First idea.")
    first = lab.run(full_job(lab))
    expired_at = lab.clock.now() + timedelta(minutes=5)
    _expire(lab, first.job, expired_at)
    lab.fake.script.clear()
    say(lab, "writer", "Second idea.")

    second = asyncio.run(lab.handled(lab.claimed_again()))

    assert second.job.token > first.job.token
    (prompt,) = suggestions(lab)
    assert prompt.text == "Second idea."
    assert second.completed is not None
    assert second.completed.suggested_prompt_id == prompt.id


def _expire(lab: Completing, job: Job, now: Any) -> None:
    assert lab.storage.jobs.settle([Settlement(job_id=job.id, token=job.token, outcome=Expired())], now) == [True]


def test_a_deleted_suggestion_does_not_come_in_the_way(lab: Completing) -> None:
    """A repeated attempt whose first draft was deleted meanwhile makes another one."""
    first = lab.run(full_job(lab))
    (prompt,) = suggestions(lab)
    now = lab.clock.now()
    assert lab.storage.prompts.compare_and_set(replace(prompt, metadata=prompt.metadata.deleted(now, CLIENT)))
    _expire(lab, first.job, now + timedelta(minutes=5))

    second = asyncio.run(lab.handled(lab.claimed_again()))

    assert second.completed is not None
    (again,) = suggestions(lab)
    assert second.completed.suggested_prompt_id == again.id


def test_suggestions_of_the_same_second(lab: Completing) -> None:
    """Jobs that share a prompt and end at the same time each leave a draft, under rising versions of one name."""
    prompt = lab.prompt(name="x" * 250)
    jobs = [lab.claimed(full_job(lab, prompt)) for _ in range(4)]

    async def run() -> list[str | None]:
        handler = lab.handler()
        ends = await asyncio.gather(*(handler.handle(lab.held(job)) for job in jobs))
        await handler.aclose()
        return [end.suggested_prompt_id for end in ends]

    ids = asyncio.run(run())

    assert len(set(ids)) == 4
    assert {prompt.id for prompt in suggestions(lab)} == set(ids)
    assert all(len(prompt.name) <= 255 for prompt in suggestions(lab))


def test_edits_made_during_the_call_are_seen(lab: Completing) -> None:
    """An evaluation prompt that is changed on the job while the work runs is the one that is used."""
    lab.fake.hold()
    other = lab.prompt("Judge otherwise.")

    async def edit(attempt: "asyncio.Future[Any]", work: Held) -> None:
        await asyncio.to_thread(lab.fake.seen.wait_until, lambda seen: seen.in_flight == 1)
        await asyncio.to_thread(lab.edit, work.job.id, eval_prompt=other.id)
        lab.fake.release()

    done = asyncio.run(lab.handled(lab.claimed(full_job(lab)), meanwhile=edit))

    assert done.completed is not None
    assert lab.fake.seen.calls[1].system == "Judge otherwise."


def test_a_job_taken_away_stops_before_the_next_step(lab: Completing) -> None:
    """A job that is cancelled during the work gets no evaluation: the lease is gone."""
    lab.fake.hold()

    async def cancel(attempt: "asyncio.Future[Any]", work: Held) -> None:
        await asyncio.to_thread(lab.fake.seen.wait_until, lambda seen: seen.in_flight == 1)
        token = work.job.token + 1
        await asyncio.to_thread(lab.edit, work.job.id, status=JobState.CANCELED, lease=None, token=token)
        lab.fake.release()

    done = asyncio.run(lab.handled(lab.claimed(full_job(lab)), meanwhile=cancel))

    assert isinstance(done.error, LeaseLost)
    assert [each.step for each in done.calls] == ["work"]
    assert lab.fake.seen.total == 1


@pytest.mark.parametrize("hanging", ["judge", "writer"])
def test_a_further_step_that_hangs_does_not_cost_the_answer(lab: Completing, hanging: str) -> None:
    """It is given up while there is still time to keep what has been paid for: before the attempt's own limit."""
    lab.fake.add(Rule(fault("hang"), model=hanging))
    limit = Timeouts(read=1.0, total=1.0)
    began = lab.clock.monotonic()

    done = asyncio.run(lab.handled(lab.claimed(full_job(lab)), timeouts=limit))

    assert lab.clock.monotonic() - began < 1.5
    assert done.completed is not None
    assert done.calls[0].outcome == "ok"
    assert "unknown" in {call.outcome for call in done.calls}
    if hanging == "judge":
        assert done.completed.eval_result == {
            "error": "the attempt had no time left for the evaluation",
            "errorType": "ProviderTimeout",
        }
    assert done.completed.suggested_prompt_id is None
