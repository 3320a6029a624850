"""Jobs whose answer is scored by an evaluator: which calls are made, and what evalResult says of them."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.evaluation.values import Errored, Measured, Metric, MetricKind, Unscored, Value, complete, settled_by
from engine.jobs.job import Job
from engine.llm import Timeouts
from engine.records.evaluators import Evaluator
from tests.support.completing import Completing, completing
from tests.support.factories import CLIENT, IDS, metadata
from tests.support.fake_provider import Rule, fault

EXACT = Metric(kind=MetricKind.EXACT, name="exact", weight=1.0, parameters={"field": "answer"})
GATE = Metric(
    kind=MetricKind.EXPRESSION, name="gate", weight=0.0, hard=True, parameters={"expression": "output['score'] < 1"}
)
TONE = Metric(kind=MetricKind.LLM_JUDGE, name="tone", weight=3.0, parameters={"model": "judge", "rubric": "is polite"})
STYLE = Metric(kind=MetricKind.LLM_JUDGE, name="style", parameters={"model": "other", "rubric": "is short"})


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Completing]:
    with completing(tmp_path) as made:
        for name in ("m", "judge", "other", "writer"):
            made.model(name)
        yield made


def scored_job(lab: Completing, *metrics: Metric, **fields: Any) -> Job:
    evaluator = Evaluator(
        id=IDS.new(), client_id=CLIENT, name="e", version=7, metrics=metrics, metadata=metadata(), description=None
    )
    lab.storage.evaluators.add(evaluator)
    return lab.job(**{"evaluator": evaluator.id, "expected": {"answer": "ok"}, **fields})


def say(lab: Completing, model: str, content: str) -> None:
    lab.fake.add(Rule(fault("text", content=content), model=model))


def test_metrics_and_judges_score_the_answer_within_the_attempt(lab: Completing) -> None:
    """Code metrics are measured, judges are told request, answer and what is expected; every call of both is booked."""
    say(lab, "judge", '{"score": 0.5, "feedback": "too curt"}')
    job = scored_job(lab, EXACT, TONE, request_data={"q": 1})

    done = lab.run(job)

    assert done.completed is not None
    evaluation = done.completed.eval_result
    assert evaluation is not None
    assert evaluation["score"] == pytest.approx((1 + 3 * 0.5) / 4)
    assert evaluation["evaluator"] == {"id": job.evaluator, "version": 7}
    assert [(each["name"], each["outcome"], each["value"]) for each in evaluation["metrics"]] == [
        ("exact", "value", 1.0),
        ("tone", "value", 0.5),
    ]
    assert evaluation["metrics"][1]["feedback"] == "too curt"
    call = lab.fake.seen.calls[1]
    assert "is polite" in call.system
    assert json.loads(call.user) == {
        "input": {"q": 1},
        "output": {"answer": "ok", "score": 1},
        "expected": {"answer": "ok"},
    }
    assert [(each.step, each.model, each.outcome) for each in done.calls] == [
        ("work", "m", "ok"),
        ("eval", "judge", "ok"),
    ]
    assert all(each.input_cost for each in done.calls)


def test_judges_are_not_asked_where_a_hard_gate_has_failed(lab: Completing) -> None:
    """The score is 0, which no judge can change; the judge's metric is unscored and says why."""
    done = lab.run(scored_job(lab, TONE, GATE))

    assert done.completed is not None
    evaluation = done.completed.eval_result
    assert evaluation is not None
    assert evaluation["score"] == 0.0
    assert [(each["name"], each["outcome"], each["value"]) for each in evaluation["metrics"]] == [
        ("tone", "unscored", None),
        ("gate", "value", 0.0),
    ]
    assert "gate" in evaluation["metrics"][0]["reason"]
    assert [each.step for each in done.calls] == ["work"]


@pytest.mark.parametrize(("kind", "calls"), [("key", 1), ("status,code=500", 3), ("text,content='{}'", 2)])
def test_a_judge_that_fails_leaves_its_metric_unscored(lab: Completing, kind: str, calls: int) -> None:
    """Never a 0: the score is null, the job has its result and what other judges said, and every call is booked."""
    lab.model(f"judge!{kind}")
    say(lab, "other", '{"score": 1}')
    broken = Metric(
        kind=MetricKind.LLM_JUDGE, name="broken", parameters={"model": f"judge!{kind}", "rubric": "is polite"}
    )

    done = lab.run(scored_job(lab, broken, STYLE))

    assert done.result == {"answer": "ok", "score": 1}
    assert done.completed is not None
    evaluation = done.completed.eval_result
    assert evaluation is not None
    assert (evaluation["score"], evaluation["outcome"]) == (None, "unscored")
    assert [(each["outcome"], each["value"]) for each in evaluation["metrics"]] == [("unscored", None), ("value", 1.0)]
    assert [each.model for each in done.calls if each.step == "eval"] == [f"judge!{kind}"] * calls + ["other"]
    assert lab.fake.seen.by_model["m"] == 1


def test_each_judge_s_call_has_an_id_of_its_own(lab: Completing) -> None:
    """Two judges of one model are two requests to its vendor, none of which is taken for the other's repetition."""
    say(lab, "judge", '{"score": 1}')
    second = Metric(kind=MetricKind.LLM_JUDGE, name="second", parameters={"model": "judge", "rubric": "is short"})

    lab.run(scored_job(lab, TONE, second))

    ids = [call.attempt_id for call in lab.fake.seen.calls]
    assert len(set(ids)) == 3


def test_a_judge_that_hangs_costs_neither_the_answer_nor_the_metrics(lab: Completing) -> None:
    """It is given up while what has been paid for can still be kept."""
    lab.fake.add(Rule(fault("hang"), model="judge"))

    done = asyncio.run(lab.handled(lab.claimed(scored_job(lab, EXACT, TONE)), timeouts=Timeouts(read=1.0, total=1.0)))

    assert done.completed is not None
    evaluation = done.completed.eval_result
    assert evaluation is not None
    assert [each["outcome"] for each in evaluation["metrics"]] == ["value", "unscored"]
    assert "ProviderTimeout" in evaluation["metrics"][1]["reason"]


def test_an_evaluator_that_is_gone(lab: Completing) -> None:
    """The job is completed all the same, and evalResult says what is missing."""
    done = lab.run(lab.job(evaluator="0" * 24))

    assert done.completed is not None
    assert done.completed.eval_result is not None
    assert done.completed.eval_result["errorType"] == "UnknownReference"


def test_the_meta_step_follows_an_evaluator(lab: Completing) -> None:
    """It is given the evaluator's result as it is given an evaluation prompt's."""
    say(lab, "writer", "Answer better.")
    meta = lab.prompt("Improve it.")

    done = lab.run(scored_job(lab, EXACT, meta_prompt=meta.id, meta_model="writer"))

    assert done.completed is not None
    assert done.completed.suggested_prompt_id is not None
    assert json.loads(lab.fake.seen.calls[1].user)["evaluation"] == done.completed.eval_result


def test_what_is_settled_without_a_judge() -> None:
    """An error of a metric and a hard gate that failed settle the outcome; nothing else does."""
    assert settled_by([Measured(EXACT, Value(score=0.0)), Measured(GATE, Value(score=1.0))]) is None
    assert settled_by([Measured(GATE, Unscored("nobody knows"))]) is None
    assert "gate" in str(settled_by([Measured(GATE, Value(score=0.5))]))
    assert "exact" in str(settled_by([Measured(EXACT, Errored("wrong"))]))
    [judge, gate] = complete([TONE, GATE], [Measured(GATE, Value(score=0.0))])
    assert (judge.metric, gate.metric) == (TONE, GATE)
    assert isinstance(judge.outcome, Unscored)
