"""Jobs that name an evaluator in place of evalPrompt and evalModel."""

from collections.abc import Iterator
from typing import Any

import pytest

from engine.records.store import Storage
from tests.support.api import Api, running_api
from tests.support.fake_provider import FakeProvider, Rule, fault
from tests.support.jobs_http import Shop, open_shop

EXACT = {"kind": "exact", "name": "exact", "parameters": {"field": "answer"}}


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as running:
        yield running


@pytest.fixture
def shop(storage: Storage, provider: FakeProvider) -> Iterator[Shop]:
    provider.script.clear()
    provider.seen.reset()
    with running_api(storage, environment={"SOME_KEY": "sk-0123456789"}) as api:
        for name in ("judge", "worker"):
            api.new_model(name=name, sdk="OpenAI", endpoint=provider.openai_url, key="SOME_KEY", deployment=name)
        yield open_shop(api)


@pytest.fixture
def local(local_api: Api) -> Shop:
    return open_shop(local_api)


def evaluator_of(shop: Shop, *metrics: dict[str, Any]) -> dict[str, Any]:
    answer = shop.call("POST", "/evaluators", {"name": "e", "metrics": list(metrics or (EXACT,))})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def refused(shop: Shop, path: str, status: int = 400, **fields: Any) -> str:
    body = shop.body(**fields)
    answer = shop.call("POST", path, {"jobs": [body]} if path.endswith("batch") else body)
    assert answer.status_code == status, answer.text
    return str(answer.json()["detail"])


def test_a_direct_call_is_scored(shop: Shop, provider: FakeProvider) -> None:
    """The answer of POST /complete has the evaluator, what is expected, the scores and both calls' costs."""
    provider.add(Rule(fault("text", content='{"score": 0.5}'), model="judge"))
    judge = {"kind": "llm_judge", "name": "tone", "parameters": {"model": "judge", "rubric": "is polite"}}
    evaluator = evaluator_of(shop, EXACT, judge)
    evaluator_id, expected = evaluator["evaluatorId"], {"answer": "ok"}
    answer = shop.call("POST", "/complete", shop.body(model="worker", evaluator=evaluator_id, expected=expected))
    assert answer.status_code == 200, answer.text
    job = answer.json()
    assert (job["status"], job["evaluator"], job["expected"]) == ("PROCESSED", evaluator_id, expected)
    assert job["evalResult"]["score"] == 0.75
    assert job["evalResult"]["evaluator"] == {"id": evaluator_id, "version": evaluator["version"]}
    assert [(step["step"], step["model"]) for step in job["steps"]] == [("work", "worker"), ("eval", "judge")]
    assert shop.get(job["jobId"]) == job


@pytest.mark.parametrize("path", ["/jobs", "/jobs/batch", "/complete"])
def test_an_evaluator_that_cannot_be_named_is_refused(local: Shop, path: str) -> None:
    """400 alike for one that is unknown, deleted or another client's, and for one that needs something to compare."""
    model = local.model
    theirs = evaluator_of(open_shop(local.api))["evaluatorId"]
    pairwise = {"kind": "pairwise_judge", "name": "better", "parameters": {"model": model, "rubric": "is right"}}
    gone = evaluator_of(local)["evaluatorId"]
    assert local.call("DELETE", f"/evaluators/{gone}").status_code == 204
    for unknown in ("0" * 24, theirs, gone):
        assert f"evaluator not found: {unknown}" in refused(local, path, evaluator=unknown)
    assert "nothing to compare with" in refused(local, path, evaluator=evaluator_of(local, pairwise)["evaluatorId"])


def test_an_evaluator_excludes_prompt_and_model(local: Shop) -> None:
    """Both are 400 that names the field, and so is something expected that nobody looks at."""
    evaluator = evaluator_of(local)["evaluatorId"]
    both = refused(local, "/jobs", evaluator=evaluator, evalPrompt=local.prompt, evalModel=local.model)
    assert "evaluator: stands in place of evalPrompt and evalModel" in both
    assert "expected: is for an evaluator" in refused(local, "/jobs", expected=1)
    assert "expected" in str(refused(local, "/jobs", 422, evaluator=evaluator, expected="x" * (1024 * 1024)))


def test_the_evaluator_of_a_job_can_be_changed(shop: Shop) -> None:
    """PATCH /full sets it, refuses it beside an evaluation prompt or where it is unknown, and "" removes it."""
    evaluator = evaluator_of(shop)["evaluatorId"]
    job = shop.post(evalPrompt=shop.prompt, evalModel=shop.model)
    path = f"/jobs/{job['jobId']}/full"
    assert "evaluator" in shop.call("PATCH", path, {"evaluator": evaluator}).json()["detail"]
    assert shop.call("PATCH", path, {"evalPrompt": "", "evalModel": "", "evaluator": "0" * 24}).status_code == 400
    changed = shop.call("PATCH", path, {"evalPrompt": "", "evalModel": "", "evaluator": evaluator, "expected": [1]})
    assert changed.status_code == 200, changed.text
    assert (changed.json()["evaluator"], changed.json()["expected"]) == (evaluator, [1])
    removed = shop.call("PATCH", path, {"evaluator": ""}).json()
    assert (removed["evaluator"], removed["expected"], removed["evalPrompt"]) == (None, None, None)
    assert shop.get(job["jobId"])["evaluator"] is None


def test_the_explanation_names_what_is_missing(local: Shop) -> None:
    """An evaluator that was deleted since is among the problems of a waiting job."""
    evaluator = evaluator_of(local)["evaluatorId"]
    job = local.post(evaluator=evaluator)
    assert local.call("DELETE", f"/evaluators/{evaluator}").status_code == 204
    explained = local.call("GET", f"/jobs/{job['jobId']}/explain").json()
    assert f"evaluator {evaluator} does not exist any more" in str(explained)
