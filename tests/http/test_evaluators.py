"""/evaluators: versions of metrics, refused by the parameter that is wrong, and tried on one item."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from engine.records.store import Storage
from tests.support.api import Api, running_api
from tests.support.fake_provider import FakeProvider, Rule, fault
from tests.support.jobs_http import Shop, open_shop

EXACT = {"kind": "exact", "weight": 1}
JUDGE = {"kind": "llm_judge", "name": "tone", "parameters": {"model": "judge", "rubric": "is polite"}}


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as running:
        yield running


@pytest.fixture
def fake(provider: FakeProvider) -> Iterator[FakeProvider]:
    provider.seen.reset()
    yield provider
    provider.script.clear()


@pytest.fixture
def shop(storage: Storage, fake: FakeProvider) -> Iterator[Shop]:
    with running_api(storage, environment={"SOME_KEY": "sk-0123456789"}) as api:
        for name in ("judge", "worker"):
            api.new_model(name=name, sdk="OpenAI", endpoint=fake.openai_url, key="SOME_KEY", deployment=name)
        yield open_shop(api)


@pytest.fixture
def local(local_api: Api) -> Shop:
    return open_shop(local_api)


def made(shop: Shop, *metrics: dict[str, Any], name: str = "e") -> dict[str, Any]:
    answer = shop.call("POST", "/evaluators", {"name": name, "metrics": list(metrics)})
    assert answer.status_code == 201, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def tried(shop: Shop, evaluator: dict[str, Any], **item: Any) -> dict[str, Any]:
    answer = shop.call("POST", f"/evaluators/{evaluator['evaluatorId']}/dry-run", item)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def test_each_is_a_version(shop: Shop) -> None:
    """Evaluators of one name are numbered, come back as they were made, and are their owner's alone."""
    first, second = made(shop, EXACT, JUDGE), made(shop, EXACT)
    assert (first["version"], second["version"]) == (1, 2)
    path = f"/evaluators/{first['evaluatorId']}"
    shown = shop.call("GET", path).json()
    assert shown["metrics"][1] == {"weight": 1.0, "hard": False, "threshold": 1.0, **JUDGE}
    assert shown["metrics"][0]["name"] == "exact"
    assert [each["version"] for each in shop.call("GET", "/evaluators?name=e").json()] == [1, 2]
    other = shop.api.new_client()
    assert shop.api.http.get(path, headers=other).status_code == 404
    assert shop.api.http.delete(path, headers=other).status_code == 404
    assert shop.call("DELETE", path).status_code == 204
    assert shop.call("GET", path).status_code == 404


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ([EXACT, EXACT], "metrics[1].name: 'exact' is there already"),
        ([{"kind": "exact", "weight": 0}], "metrics: every weight is 0 and none is hard"),
        (
            [{"kind": "regex", "parameters": {"pattern": "("}}],
            "metrics[0].parameters.pattern: not a regular expression",
        ),
        ([EXACT, {"kind": "numeric", "parameters": {"abs": 1}}], "metrics[1].parameters.abs: numeric has no such"),
        ([{"kind": "expression", "parameters": {"expression": "import os"}}], "metrics[0].parameters.expression"),
        ([JUDGE], "model not found: judge"),
    ],
)
def test_what_is_wrong_is_named(local: Shop, metrics: list[dict[str, Any]], told: str) -> None:
    """A metric that cannot be is refused by its place and parameter, a judge without its model by that."""
    answer = local.call("POST", "/evaluators", {"name": "e", "metrics": metrics})
    assert answer.status_code == 400
    assert told in answer.json()["detail"]


def test_a_given_output_is_scored(shop: Shop, fake: FakeProvider) -> None:
    """A dry run on a given output asks nobody where no judge is needed, and says what each metric says."""
    evaluator = made(shop, {"kind": "json", "weight": 3}, {"kind": "length", "parameters": {"max": 3}})
    shown = tried(shop, evaluator, output={"a": 1, "b": 2}, expected={"a": 1, "b": 3})
    assert (shown["outcome"], shown["score"], fake.seen.total) == ("value", 0.375, 0)
    assert [(each["name"], each["score"]) for each in shown["metrics"]] == [("json", 0.5), ("length", 0.0)]
    assert "b: expected 3, got 2" in shown["feedback"]


def test_judges_and_models_are_called(shop: Shop, fake: FakeProvider) -> None:
    """A dry run with a model asks it, and then the judge; both are the caller's jobs, and their costs are told."""
    fake.script.add(Rule(fault("text", content=json.dumps({"score": 0.5, "feedback": "be kind"})), model="judge"))
    fake.script.add(Rule(fault("text", content='{"reply": "no"}'), model="worker"))
    evaluator = made(shop, JUDGE, {"kind": "exact", "parameters": {"field": "reply"}})
    asked = {"model": "worker", "instructions": "Reply.", "input": "may I?", "expected": {"reply": "no"}}
    shown = tried(shop, evaluator, **asked)
    assert (shown["output"], shown["score"]) == ({"reply": "no"}, 0.75)
    assert shown["feedback"] == "tone: be kind"
    assert shown["processingMetrics"]["totalCost"] > 0
    roles = [shop.get(job_id)["clientReference"]["role"] for job_id in shown["jobIds"]]
    assert roles == ["work", "eval"]
    assert fake.seen.total == 2


def test_a_judge_that_cannot_change_anything_is_not_asked(shop: Shop, fake: FakeProvider) -> None:
    """After a hard gate has failed a dry run asks no judge, as an evaluation asks none, and says why."""
    gate = {"kind": "length", "hard": True, "weight": 0, "parameters": {"max": 3}}
    shown = tried(shop, made(shop, JUDGE, gate), output="too long")
    assert (shown["outcome"], shown["score"], shown["jobIds"], fake.seen.total) == ("value", 0.0, [], 0)
    told = {each["name"]: (each["outcome"], each["reason"]) for each in shown["metrics"]}
    assert told["tone"] == ("unscored", "not asked: length has failed, which is a hard gate")


def test_a_judge_that_fails_leaves_it_unscored(shop: Shop, fake: FakeProvider) -> None:
    """A judge that refuses, or a model that does, gives no score at all: never a 0. Of a pair that can have none
    any more the other order is not asked."""
    fake.script.add(Rule(fault("refusal")))
    shown = tried(shop, made(shop, JUDGE, EXACT), output="x", expected="x")
    assert (shown["outcome"], shown["score"]) == ("unscored", None)
    assert "AnswerRefused" in shown["reason"]
    assert [each["outcome"] for each in shown["metrics"]] == ["unscored", "value"]
    pair = {"kind": "pairwise_judge", "parameters": JUDGE["parameters"]}
    halved = tried(shop, made(shop, pair), output="x", expected="y")
    assert (halved["outcome"], len(halved["jobIds"])) == ("unscored", 1)
    nothing = tried(shop, made(shop, EXACT), model="worker", instructions="Reply.", input="x")
    assert (nothing["outcome"], nothing["output"]) == ("unscored", None)


@pytest.mark.parametrize("body", [{}, {"output": "x", "model": "m"}, {"model": "m", "input": 1}])
def test_a_dry_run_needs_an_output_or_a_model(local: Shop, body: dict[str, Any]) -> None:
    """Neither, both, or a model with nothing to say is a failed validation."""
    evaluator = made(local, EXACT)
    answer = local.call("POST", f"/evaluators/{evaluator['evaluatorId']}/dry-run", body)
    assert answer.status_code == 422
