"""GET /models/{id}/status and /models/status: how models do now; and what explanations of jobs make of it."""

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import pytest

from api.models.model_status import ModelStatusResponse
from engine.llm import (
    Completion,
    CompletionRequest,
    Endpoint,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    TransientProviderError,
    Usage,
)
from tests.http.test_answers_fit import assert_fits
from tests.support.api import Api, running_api
from tests.support.jobs_http import Shop, open_shop

REQUEST = CompletionRequest(endpoint=Endpoint(sdk="test", base_url="", deployment="m"), system="", user="hello")
ANSWER = Completion(text="{}", usage=Usage(input_tokens=400, output_tokens=100))
REFUSED = RateLimited("slow down, organization org-7", retry_after=timedelta(seconds=90))
SILENT = TransientProviderError("no answer")


def called(api: Api, made: dict[str, Any], *outcomes: Completion | ProviderError) -> None:
    """Calls of the model in this replica, one after the other, that end so."""
    model = api.storage.models.get(made["model_id"])
    assert model is not None

    async def call(outcome: Completion | ProviderError) -> None:
        async with api.lanes.call(model, REQUEST) as lane_call:
            if isinstance(outcome, ProviderError):
                raise outcome
            lane_call.completion = outcome

    for outcome in outcomes:
        with suppress(ProviderError):
            asyncio.run(call(outcome))


def status(api: Api, made: dict[str, Any]) -> dict[str, Any]:
    answer = api.http.get(f"/models/{made['model_id']}/status", headers=api.admin)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    assert_fits(shown, ModelStatusResponse)
    return shown


def seconds_until(api: Api, instant: str) -> float:
    return (datetime.fromisoformat(instant) - api.clock.now()).total_seconds()


def router(api: Api, *targets: str, **fields: Any) -> dict[str, Any]:
    body = {"name": "r", "sdk": "router", "strategy": "cheapest", "targets": [{"model": name} for name in targets]}
    made: dict[str, Any] = api.http.post("/models", json={**body, **fields}, headers=api.admin).json()
    return made


def test_a_model_that_nobody_has_called(local_api: Api) -> None:
    """It is open, nothing runs or waits, and there is nothing to say of its calls."""
    made = local_api.new_model(limits={"concurrency": 7, "requestsPerMinute": 60})
    expected = {
        "model_id": made["model_id"],
        "name": "gpt-test",
        "state": "open",
        "inFlight": 0,
        "waiting": 0,
        "window": 7,
        "breaker": "closed",
        "errorRate": 0.0,
        "wouldTry": ["gpt-test"],
        "replica": "here",
    }

    shown = status(local_api, made)

    assert {name: value for name, value in shown.items() if value is not None} == expected


def test_how_calls_went(local_api: Api) -> None:
    """Latencies are of the calls that ended well, the error rate of all; a failure bounds the window."""
    made = local_api.new_model()
    assert status(local_api, made)["window"] is None
    called(local_api, made, ANSWER, ANSWER, ANSWER, SILENT)

    shown = status(local_api, made)

    assert shown["errorRate"] == 0.25
    assert 0 < shown["latency"]["p50"] <= shown["latency"]["p95"] <= shown["latency"]["p99"] < 10
    assert (shown["window"], shown["state"]) == (1, "open")


@pytest.mark.parametrize(
    ("outcome", "reason", "seconds"),
    [(REFUSED, "rate_limit", 90), (QuotaExhausted("no money", retry_after=timedelta(hours=1)), "quota", 3600)],
)
def test_a_pause_shows_in_every_replica(api: Api, outcome: ProviderError, reason: str, seconds: int) -> None:
    """What one replica's provider has announced is shown by another that has made no call, with reason and time."""
    made = api.new_model()
    called(api, made, outcome)

    with running_api(api.storage) as other:
        for replica in (api, other):
            shown = status(replica, made)
            assert (shown["state"], shown["reason"], shown["text"]) == ("paused", reason, str(outcome))
            assert seconds - 10 < seconds_until(api, shown["pausedUntil"]) <= seconds


def test_a_breaker_that_opened(local_api: Api) -> None:
    """Twenty failures open it, and the pause that follows is shown as its."""
    made = local_api.new_model()
    called(local_api, made, *[SILENT] * 20)

    shown = status(local_api, made)

    assert (shown["state"], shown["reason"], shown["breaker"], shown["errorRate"]) == ("paused", "breaker", "open", 1.0)


@pytest.mark.parametrize(
    ("limits", "reason", "booked"),
    [
        ({"requestsPerMinute": 2}, "requests", "requestsBookedUntil"),
        ({"tokensPerMinute": 600}, "tokens", "tokensBookedUntil"),
    ],
)
def test_a_limit_that_is_used_up(local_api: Api, limits: dict[str, int], reason: str, booked: str) -> None:
    """Until the next call may start the model is paused, by the limit's name; how far it is booked is shown."""
    made = local_api.new_model(limits=limits)
    called(local_api, made, ANSWER)

    shown = status(local_api, made)

    assert (shown["state"], shown["reason"]) == ("paused", reason)
    assert str(*limits.values()) in shown["text"]
    assert 10 < seconds_until(local_api, shown["pausedUntil"]) <= 121
    assert seconds_until(local_api, shown[booked]) > 10


def test_where_a_router_would_go(local_api: Api) -> None:
    """A router shows its targets as they would be tried now, and is paused only while none of them takes a call."""
    low, high = ({"tokens": 1000, "currency": "USD", "input": price, "output": price} for price in (1, 2))
    cheap, dear = local_api.new_model(name="cheap", cost=low), local_api.new_model(name="dear", cost=high)
    made = router(local_api, "dear", "cheap")
    assert status(local_api, made)["wouldTry"] == ["cheap", "dear"]

    called(local_api, cheap, REFUSED)
    shown = status(local_api, made)
    assert (shown["wouldTry"], shown["state"]) == (["dear", "cheap"], "open")

    called(local_api, dear, REFUSED)
    shown = status(local_api, made)
    assert (shown["state"], shown["reason"]) == ("paused", "rate_limit")


def test_the_list(api: Api) -> None:
    """All models are listed page by page, and `status` is no id."""
    names = [api.new_model(name=name)["name"] for name in "abc"]

    answer = api.http.get("/models/status?limit=2&skip=1", headers=api.admin)

    assert [each["name"] for each in answer.json()] == names[1:]
    assert answer.headers["X-Total-Count"] == "3"
    for each in answer.json():
        assert_fits(each, ModelStatusResponse)
    assert api.http.get("/models/status?limit=0", headers=api.admin).status_code == 422


def test_who_may_ask(local_api: Api) -> None:
    """The administrator alone; an unknown model is not found."""
    made, client = local_api.new_model(), local_api.new_client()
    for path in ("/models/status", f"/models/{made['model_id']}/status"):
        assert local_api.http.get(path, headers=client).status_code == 401
    assert local_api.http.get(f"/models/{'0' * 24}/status", headers=local_api.admin).status_code == 404


@pytest.fixture
def shop(api: Api) -> Shop:
    """A shop with a running worker that takes all of its jobs."""
    opened = open_shop(api)
    worker = opened.call("POST", "/workers", {"workerId": "w", "config": {"pollInterval": 1, "maxItemsPerBatch": 5}})
    assert opened.as_admin("POST", f"/workers/{worker.json()['workerId']}/start").status_code == 200
    return opened


def test_explaining_a_job_of_a_paused_model(shop: Shop) -> None:
    """The pause is named with its time, and without the vendor's words."""
    job, (made,) = shop.post(), shop.as_admin("GET", "/models").json()
    path = f"/jobs/{job['jobId']}/explain"
    assert shop.call("GET", path).json()["reason"] == "in_line"

    called(shop.api, made, REFUSED)
    told = shop.call("GET", path).json()
    assert told["reason"] == "model_paused"
    assert made["name"] in told["text"]
    assert "rate_limit" in told["text"]
    assert "org-7" not in told["text"]
    assert status(shop.api, made)["pausedUntil"][:19] in told["text"]


def test_explaining_a_job_that_goes_elsewhere(shop: Shop) -> None:
    """A job whose model is passed by for a fallback that takes calls is in line, until that is paused too."""
    job, (made,) = shop.post(), shop.as_admin("GET", "/models").json()
    other = shop.api.new_model(name="other")
    shop.api.http.patch(f"/models/{made['model_id']}", json={"fallbacks": ["other"]}, headers=shop.api.admin)
    called(shop.api, made, QuotaExhausted("no money"))
    path = f"/jobs/{job['jobId']}/explain"
    assert shop.call("GET", path).json()["reason"] == "in_line"

    called(shop.api, other, QuotaExhausted("no money either"))
    assert shop.call("GET", path).json()["reason"] == "model_paused"


def test_explaining_a_job_without_a_worker(api: Api) -> None:
    """Where there are other reasons too, the pause is told with them."""
    shop = open_shop(api)
    job, (made,) = shop.post(), shop.as_admin("GET", "/models").json()
    called(api, made, REFUSED)

    told = shop.call("GET", f"/jobs/{job['jobId']}/explain").json()

    assert told["reason"] == "no_worker"
    assert "takes no call before" in told["text"]
