"""POST /models/{id}/test: one tiny call, and what came of it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.records.values import Model
from llm_workers.providers.registry import ProviderSet, Registry
from llm_workers.trials import Trials
from tests.support.api import Api, running_api
from tests.support.backends import SQLITE, Servers, fresh_database
from tests.support.factories import make_model
from tests.support.fake_provider import FakeProvider
from tests.support.fake_provider.server import PLAIN_ANSWER
from utilities.clock import SystemClock
from utilities.ids import ObjectIds
from utilities.secrets import ProviderSecrets

KEY = "sk-trial-0123456789"


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeProvider]:
    with FakeProvider() as running:
        yield running


@pytest.fixture
def api(tmp_path: Path, storage_servers: Servers) -> Iterator[Api]:
    """A replica on SQLite whose environment holds one provider key."""
    database = fresh_database(SQLITE, storage_servers, tmp_path)
    with database as fresh, running_api(fresh.open(), environment={"SOME_KEY": KEY}) as running:
        yield running


def tried(api: Api, **fields: Any) -> dict[str, Any]:
    """The answer for a new model with these fields."""
    made = api.new_model(key="SOME_KEY", **fields)
    answer = api.http.post(f"/models/{made['model_id']}/test", headers=api.admin)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def test_a_model_that_works(api: Api, fake: FakeProvider) -> None:
    """The text, the tokens and their cost come back; exactly one small call was made, with the model's own key."""
    fake.seen.reset()
    shown = tried(api, sdk="OpenAI", endpoint=fake.openai_url, maxCompletionToken=4000)

    assert (shown["ok"], shown["text"], shown["errorType"]) == (True, PLAIN_ANSWER, None)
    assert (shown["inputTokens"], shown["outputTokens"], shown["totalTokens"]) == (11, 7, 18)
    assert shown["totalCost"] == shown["inputCost"] + shown["outputCost"] == pytest.approx(0.0000975)
    assert shown["currency"] == "USD"
    assert 0 < shown["duration"] < 10
    (call,) = fake.seen.calls
    assert call.body["max_tokens"] == 64
    assert call.attempt_id.startswith("trial-")


def test_a_smaller_limit_holds(api: Api, fake: FakeProvider) -> None:
    """A model's own token limit is kept where it is smaller than the trial's, and an answer cut off there is one."""
    fake.seen.reset()
    shown = tried(api, sdk="OpenAI", endpoint=fake.openai_url, maxToken=5, deployment="m!length")

    assert shown["ok"]
    assert shown["finishReason"] == "length"
    assert fake.seen.calls[0].body["max_tokens"] == 5


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("key", {"errorType": "ProviderRefusedKey", "errorStatus": 401}),
        ("rate_limit,seconds=7", {"errorType": "RateLimited", "errorStatus": 429, "retryAfter": 7.0}),
        ("rate_limit,seconds=0", {"errorType": "RateLimited", "errorStatus": 429, "retryAfter": 0.0}),
        ("quota", {"errorType": "QuotaExhausted"}),
        ("status,code=503", {"errorType": "TransientProviderError", "errorStatus": 503}),
        ("status,code=404", {"errorType": "PermanentProviderError", "errorStatus": 404}),
        ("refusal", {"errorType": "AnswerRefused", "inputTokens": 11, "requestId": "req_fake"}),
        ("hang", {"errorType": "ProviderTimeout", "errorStatus": None}),
    ],
)
def test_a_model_that_fails(api: Api, fake: FakeProvider, fault: str, expected: dict[str, Any]) -> None:
    """A failure is an answer like any other: its kind, the vendor's words, status and wait; never the key."""
    shown = tried(api, sdk="Anthropic", endpoint=fake.url, deployment=f"m!{fault}")

    assert (shown["ok"], shown["text"]) == (False, None)
    assert {name: shown[name] for name in expected} == expected
    assert shown["errorMessage"]
    assert KEY not in repr(shown)


def test_a_model_whose_key_is_missing(api: Api) -> None:
    """Nothing is called; the message names the variables in which the key was looked for."""
    made = api.new_model(sdk="Mistral", endpoint="default", key="default", name="m")
    shown = api.http.post(f"/models/{made['model_id']}/test", headers=api.admin).json()

    assert (shown["ok"], shown["errorType"], shown["errorStatus"]) == (False, "ProviderRefusedKey", None)
    assert "MISTRAL_API_KEY" in shown["errorMessage"]
    assert shown["totalCost"] is None


def test_an_endpoint_where_nobody_is(api: Api) -> None:
    """The message says that the endpoint cannot be reached."""
    shown = tried(api, sdk="OpenAI", endpoint="http://127.0.0.1:1/v1")

    assert (shown["ok"], shown["errorType"]) == (False, "TransientProviderError")
    assert "127.0.0.1" in shown["errorMessage"]


def test_who_may(api: Api) -> None:
    """For the administrator alone; an unknown and a deleted model are 404."""
    made = api.new_model()
    path = f"/models/{made['model_id']}/test"
    client = api.new_client()

    assert api.http.post(path).status_code == 401
    assert api.http.post(path, headers=client).status_code == 401
    assert api.http.post("/models/000000000000000000000000/test", headers=api.admin).status_code == 404
    api.http.delete(f"/models/{made['model_id']}", headers=api.admin)
    assert api.http.post(path, headers=api.admin).status_code == 404


def test_a_router(api: Api, fake: FakeProvider) -> None:
    """A router's targets are called in the order of its strategy until one answers, at that one's cost."""
    keys = {"sdk": "OpenAI", "endpoint": fake.openai_url, "key": "SOME_KEY"}
    cheap, dear = ({"tokens": 1000, "currency": "USD", "input": price, "output": price} for price in (1, 2))
    api.new_model(name="dear", cost=dear, **keys)
    cheapest = api.new_model(name="cheap", cost=cheap, deployment="m!key", **keys)
    targets = [{"model": "dear"}, {"model": "cheap"}]
    body = {"name": "r", "sdk": "router", "targets": targets, "strategy": "cheapest"}
    path = f"/models/{api.http.post('/models', json=body, headers=api.admin).json()['model_id']}/test"

    shown = api.http.post(path, headers=api.admin).json()
    assert (shown["ok"], shown["model"], shown["answeredBy"]) == (True, "r", "dear")
    assert shown["called"] == ["cheap", "dear"]
    assert shown["totalCost"] == pytest.approx(18 / 1000 * 2)

    transient = {"deployment": "m!status,code=503"}
    api.http.patch(f"/models/{cheapest['model_id']}", json=transient, headers=api.admin)
    failed = api.http.post(path, headers=api.admin).json()
    assert (failed["called"], failed["answeredBy"], failed["errorStatus"]) == (["cheap"], None, 503)


def test_a_router_whose_targets_are_gone(api: Api) -> None:
    """Nothing is called, and the message says that there is none to choose."""
    target = api.new_model(name="a")
    body = {"name": "r", "sdk": "router", "targets": [{"model": "a"}]}
    router = api.http.post("/models", json=body, headers=api.admin).json()
    api.http.delete(f"/models/{target['model_id']}", headers=api.admin)
    shown = api.http.post(f"/models/{router['model_id']}/test", headers=api.admin).json()
    assert (shown["ok"], shown["called"], shown["errorType"]) == (False, [], "UnknownReference")
    assert "router r" in shown["errorMessage"]


class _Surprising(ProviderSet):
    """A set whose providers fail in a way that no provider may."""

    async def get(self, sdk: str) -> Any:
        raise ZeroDivisionError(f"secret of {sdk}")


def test_a_plug_in_that_breaks_the_rules() -> None:
    """An error that is no provider's is told by its type alone, since its text may hold anything."""

    async def inline(function: Any, *args: Any) -> Any:
        return function(*args)

    async def none() -> dict[str, Model]:
        return {}

    trials = Trials(
        providers=_Surprising(Registry()),
        models=none,
        secrets=ProviderSecrets({}),
        clock=SystemClock(),
        ids=ObjectIds(),
        hop=inline,
    )
    model: Model = make_model(sdk="test")

    trial = asyncio.run(trials.run(model))

    assert trial.completion is None
    assert "ZeroDivisionError" in str(trial.error)
    assert "secret" not in str(trial.error)
