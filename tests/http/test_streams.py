"""/stream: what a stream answers, what its record says afterwards, and who sees it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter

from api.models.streams import StreamAnalyticsResponse, StreamResponse, StreamSummaryResponse
from engine.records.store import Storage
from engine.records.streams import Stream
from llm_workers.providers.scripted import STREAMED
from tests.support.api import Api, Headers, model_body, running_api
from tests.support.factories import IDS, make_stream
from tests.support.fake_provider import FakeProvider

KEY = "PROVIDER_KEY"
EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with FakeProvider() as running:
        yield running


@pytest.fixture
def api(storage: Storage) -> Iterator[Api]:
    """A replica that knows the fake provider's key."""
    with running_api(storage, environment={KEY: "sk-of-no-worth"}) as running:
        running.new_model()
        yield running


@pytest.fixture
def shop(local_api: Api) -> Api:
    """A replica on SQLite alone with a model, for what does not depend on the back-end."""
    local_api.new_model()
    return local_api


def body(**fields: Any) -> dict[str, Any]:
    return {"userPrompt": "Tell me.", "model": "gpt-test", **fields}


def fake_model(api: Api, fake: FakeProvider, name: str = "fake", deployment: str = "fake", **fields: Any) -> None:
    url = fake.openai_url
    api.new_model(**model_body(name=name, sdk="OpenAI", endpoint=url, deployment=deployment, key=KEY, **fields))


def frames(text: str) -> list[Any]:
    """The data of all events; what is no JSON as text."""
    data = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [json.loads(each) if each.startswith("{") else each for each in data]


def record(api: Api, answer: Any, headers: Headers) -> dict[str, Any]:
    found = api.http.get(f"/stream/{answer.headers['X-Stream-Id']}", headers=headers)
    assert found.status_code == 200, found.text
    shown: dict[str, Any] = found.json()
    assert set(shown) == {field.alias or name for name, field in StreamResponse.model_fields.items()}
    TypeAdapter(StreamResponse).validate_python(shown)
    return shown


def test_a_plain_stream_and_its_record(api: Api, client: Headers) -> None:
    """The text as it is with the contract's headers; once it has been read, the record is complete and adds up."""
    asked = body(clientReference={"team": "red"}, temperature=1.5)
    answer = api.http.post("/stream", json=asked, headers=client)

    assert (answer.status_code, answer.text) == (200, STREAMED)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert (answer.headers["Cache-Control"], answer.headers["X-Accel-Buffering"]) == ("no-cache", "no")
    shown = record(api, answer, client)
    metrics = shown["processingMetrics"]
    assert (shown["status"], shown["errorData"], shown["answeredBy"]) == ("completed", None, "gpt-test")
    assert shown["completedAt"] == shown["_metadata"]["completedAt"] is not None
    assert (shown["model"], shown["temperature"], shown["clientReference"]) == ("gpt-test", 1.5, {"team": "red"})
    assert shown["requestData"] == {"userPrompt": "Tell me.", "additionalPrompts": []}
    assert shown["responseData"] == {"content": STREAMED}
    assert (metrics["inputTokens"], metrics["outputTokens"], metrics["totalTokens"]) == (10, 50, 60)
    assert metrics["totalCost"] == metrics["inputCost"] + metrics["outputCost"] > 0
    assert metrics["currency"] == "USD"
    assert metrics["duration"] == metrics["totalDuration"] >= metrics["llmDuration"] > 0
    assert metrics["overheadDuration"] == pytest.approx(metrics["totalDuration"] - metrics["llmDuration"])


def test_events(api: Api, client: Headers) -> None:
    """With Accept: text/event-stream each piece is an event, the last ones are the metrics and [DONE]."""
    answer = api.http.post("/stream", json=body(), headers={**client, **EVENTS})

    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    *pieces, metrics, done = frames(answer.text)
    assert "".join(piece["content"] for piece in pieces) == STREAMED
    assert metrics == {"metrics": record(api, answer, client)["processingMetrics"]}
    assert done == "[DONE]"


def test_prompts_reach_the_model_and_the_usage_has_the_call(api: Api, client: Headers, fake: FakeProvider) -> None:
    """The texts of additionalPrompts are the system prompt, userPrompt the user's words; the one call is in the usage
    under the operation `stream`, with the record's cost."""
    fake_model(api, fake)
    prompts = [api.new_prompt(client, prompt=text)["promptId"] for text in ("Be brief.", "Be kind.")]

    answer = api.http.post("/stream", json=body(model="fake", additionalPrompts=prompts), headers=client)

    [call] = fake.seen.calls
    assert (call.system, call.user) == ("Be brief.\n\nBe kind.", "Tell me.")
    assert call.attempt_id.startswith(answer.headers["X-Stream-Id"])
    shown = record(api, answer, client)
    [row] = api.http.get("/usage", headers=client).json()["items"]
    assert (row["operation"], row["model"], row["calls"], row["errors"]) == ("stream", "fake", 1, 0)
    assert row["cost"] == pytest.approx(shown["processingMetrics"]["totalCost"])
    assert row["inputTokens"] == shown["processingMetrics"]["inputTokens"]


def new_flow(api: Api, owner: Headers, prompts: list[str]) -> str:
    answer = api.http.post("/prompt-flows", json={"name": "flow", "promptIds": prompts}, headers=owner)
    return str(answer.json()["flowId"])


def test_a_stream_of_a_flow_gets_the_prompts_that_the_flow_has_then(
    api: Api, client: Headers, fake: FakeProvider
) -> None:
    """With a promptFlow the system prompt is that of the flow's prompts of now, as in its record; both are 422."""
    fake_model(api, fake)
    first, second = (api.new_prompt(client, prompt=text)["promptId"] for text in ("Be brief.", "Be kind."))
    flow = new_flow(api, client, [first])
    api.http.patch(f"/prompt-flows/{flow}", json={"promptIds": [second, first]}, headers=client)

    answer = api.http.post("/stream", json=body(model="fake", promptFlow=flow), headers=client)

    [call] = fake.seen.calls
    assert (answer.status_code, call.system) == (200, "Be kind.\n\nBe brief.")
    assert record(api, answer, client)["requestData"]["additionalPrompts"] == [second, first]
    both = api.http.post("/stream", json=body(additionalPrompts=[first], promptFlow=flow), headers=client)
    assert both.status_code == 422
    assert "promptFlow: stands in place of additionalPrompts" in both.text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "nobody"}, ("Model", "not found")),
        ({"additionalPrompts": ["a" * 24]}, ("Prompt", "not found")),
        ({"additionalPrompts": ["theirs"]}, ("Prompt", "not found")),
        ({"promptFlow": "f" * 24}, ("Prompt flow", "not found")),
        ({"promptFlow": "theirs"}, ("Prompt flow", "not found")),
        ({"promptFlow": "empty"}, ("promptFlow", "has no prompts")),
        ({"model": "keyless"}, ("no key", "KEY_OF_NOBODY")),
    ],
)
def test_what_cannot_be_streamed_is_400(shop: Api, fields: dict[str, Any], words: tuple[str, ...]) -> None:
    """An unknown model or prompt, another client's prompt and a missing provider key are told before anything is
    streamed, and leave no record."""
    mine, other = shop.new_client(), shop.new_client()
    if fields.get("additionalPrompts") == ["theirs"]:
        fields = {"additionalPrompts": [shop.new_prompt(other)["promptId"]]}
    if fields.get("promptFlow") == "theirs":
        fields = {"promptFlow": new_flow(shop, other, [shop.new_prompt(other)["promptId"]])}
    if fields.get("promptFlow") == "empty":
        fields = {"promptFlow": new_flow(shop, mine, [])}
    shop.new_model(name="keyless", sdk="OpenAI", key="KEY_OF_NOBODY")

    answer = shop.http.post("/stream", json=body(**fields), headers=mine)

    assert answer.status_code == 400
    assert all(word in answer.json()["detail"] for word in words)
    assert shop.http.get("/stream", headers=mine).json() == []


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"userPrompt": ""}, "userPrompt"),
        ({"model": ""}, "model"),
        ({"temperature": 2.1}, "temperature"),
        ({"additionalPrompts": [1]}, "additionalPrompts"),
        ({"promptFlow": 1}, "promptFlow"),
        ({"clientReference": []}, "clientReference"),
    ],
)
def test_unfit_bodies_are_422(shop: Api, fields: dict[str, Any], place: str) -> None:
    """A field out of its limits is named, before credentials are looked at."""
    answer = shop.http.post("/stream", json=body(**fields))
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][:2] == ["body", place]


@pytest.mark.parametrize(
    ("marker", "status", "accept"),
    [
        ("[[status code=500]]", 502, EVENTS),
        ("[[rate_limit seconds=60]]", 429, {}),
        ("[[key]]", 502, {}),
        ("[[hang]]", 504, EVENTS),
    ],
)
def test_a_failure_before_the_first_piece_is_an_error(
    local_api: Api, fake: FakeProvider, marker: str, status: int, accept: Headers
) -> None:
    """Where nothing has been streamed yet, the provider's failure is a status with a detail, in either form; the record
    ends in error with the reason."""
    with running_api(local_api.storage, environment={KEY: "sk-of-no-worth"}) as api:
        client = api.new_client()
        fake_model(api, fake)
        answer = api.http.post("/stream", json=body(model="fake", userPrompt=marker), headers={**client, **accept})
        [shown] = api.http.get("/stream", headers=client).json()

    assert answer.status_code == status, answer.text
    assert ("Retry-After" in answer.headers) == (status == 429)
    assert shown["status"] == "error"
    assert shown["errorData"]["errorMessage"] == answer.json()["detail"]
    assert [step["outcome"] for step in shown["steps"]] in (["error"], ["unknown"])
    assert "sk-of-no-worth" not in json.dumps([shown, answer.text])


@pytest.mark.parametrize("marker", ["[[broken_off]]", "[[cut]]", "[[truncated]]"])
def test_a_failure_in_the_middle(api: Api, client: Headers, fake: FakeProvider, marker: str) -> None:
    """The record keeps the text that came, the tokens so far and the reason. An event stream ends with an error event,
    a plain text is the part that came."""
    fake_model(api, fake)
    asked = body(model="fake", userPrompt=marker)
    answer = api.http.post("/stream", json=asked, headers={**client, **EVENTS})
    plain = api.http.post("/stream", json=asked, headers=client)

    *pieces, error = frames(answer.text)
    shown = record(api, answer, client)
    assert shown["status"] == "error"
    assert shown["responseData"]["content"] == "".join(piece["content"] for piece in pieces) == plain.text != ""
    assert error["error"] == shown["errorData"]["errorMessage"]
    assert error["code"].startswith("provider_")
    assert shown["processingMetrics"]["outputTokens"] > 0
    assert shown["processingMetrics"]["totalCost"] > 0


def test_signs_of_life(local_api: Api, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing comes, an event stream shows that it lives; what goes wrong later is an event, not a status."""
    monkeypatch.setattr("api.core.streamed.QUIET_SECONDS", 0.1)
    with running_api(local_api.storage, environment={KEY: "sk-of-no-worth"}) as api:
        client = api.new_client()
        fake_model(api, fake)
        answer = api.http.post("/stream", json=body(model="fake", userPrompt="[[hang]]"), headers={**client, **EVENTS})
    *pings, error = [line for line in answer.text.split("\n\n") if line]
    assert answer.status_code == 200
    assert set(pings) == {": ping"}
    assert json.loads(error.removeprefix("data: "))["code"] == "provider_timeout"


def test_failover_before_the_first_piece_only(api: Api, client: Headers, fake: FakeProvider) -> None:
    """A model that refuses its key is answered for by its fallback, and both calls are on the record; one that breaks
    off in its answer is not."""
    fake_model(api, fake, "second", cost={"tokens": 1, "currency": "EUR", "input": 1, "output": 1})
    fake_model(api, fake, "refusing", "fake!key", fallbacks=["second"])
    fake_model(api, fake, "breaking", "fake!broken_off", fallbacks=["second"])

    failed_over = record(api, api.http.post("/stream", json=body(model="refusing"), headers=client), client)
    broken = record(api, api.http.post("/stream", json=body(model="breaking"), headers=client), client)

    assert (failed_over["status"], failed_over["answeredBy"]) == ("completed", "second")
    steps = [(step["model"], step["outcome"]) for step in failed_over["steps"]]
    assert steps == [("refusing", "error"), ("second", "ok")]
    assert failed_over["processingMetrics"]["currency"] == "EUR"
    assert (broken["status"], [step["model"] for step in broken["steps"]]) == ("error", ["breaking"])


def test_a_budget_that_is_used_up_is_429(api: Api, client: Headers) -> None:
    """What a stream costs is paid from its client's budget; when that is used up, the next one is refused."""
    budget = {"amount": 0.0000001, "currency": "USD", "period": "day"}
    path = f"/clients/{client['client_id']}"
    assert api.http.patch(path, json={"budget": budget}, headers=api.admin).status_code == 200

    first = api.http.post("/stream", json=body(), headers=client)
    second = api.http.post("/stream", json=body(), headers=client)

    assert (first.status_code, second.status_code) == (200, 429)
    assert "budget" in second.json()["detail"]
    assert second.headers["x-should-retry"] == "false"


def stored(api: Api, owner: Headers, *streams: Stream) -> list[str]:
    for stream in streams:
        api.storage.streams.add(stream)
    return [stream.id for stream in streams]


def test_who_sees_what(shop: Api) -> None:
    """A client sees its own streams, an admin all; another's and an unknown id are 404 alike; an admin names the owner
    of what he streams, else 400; nobody is 401."""
    mine, other = shop.new_client(), shop.new_client()
    answer = shop.http.post("/stream", json=body(), headers=mine)
    path = f"/stream/{answer.headers['X-Stream-Id']}"
    by_admin = shop.http.post("/stream", json=body(), headers={**shop.admin, "client_id": other["client_id"]})

    assert [shop.http.get(path, headers=each).status_code for each in (mine, shop.admin, other)] == [200, 200, 404]
    assert shop.http.get(path, headers=other).json() == {"detail": f"Stream not found: {path[8:]}"}
    for unknown in (IDS.new(), "strange"):
        assert shop.http.get(f"/stream/{unknown}", headers=mine).status_code == 404
    assert record(shop, by_admin, other)["_metadata"]["createdBy"] == "admin"
    assert len(shop.http.get("/stream", headers=shop.admin).json()) == 2
    assert shop.http.post("/stream", json=body(), headers=shop.admin).status_code == 400
    for place in ("/stream", "/stream/summary", "/stream/analytics", path):
        assert shop.http.get(place).status_code == 401


def test_lists(api: Api, client: Headers) -> None:
    """Items without prompts and texts, filtered by model, status, instants and references, paged, counted."""
    for number in range(3):
        asked = body(clientReference={"n": number})
        assert api.http.post("/stream", json=asked, headers=client).status_code == 200

    def listed(**params: Any) -> list[int]:
        found = api.http.get("/stream", params=params, headers=client)
        assert found.status_code == 200, found.text
        return [item["clientReference"]["n"] for item in found.json()]

    [first, *_] = api.http.get("/stream", params={"limit": 1}, headers=client).json()
    assert (first["requestData"], first["responseData"], first["status"]) == (None, None, "completed")
    now = datetime.now(UTC)
    assert listed() == [0, 1, 2]
    assert listed(order="desc", skip=1) == [1, 0]
    assert listed(model="gpt-test", status="completed", **{"clientReference.n": "1"}) == [1]
    assert listed(status="error") == listed(status="strange") == listed(model="other") == []
    assert listed(**{"from": now.isoformat()}) == []
    assert listed(**{"to": now.isoformat(), "from": (now - timedelta(minutes=5)).isoformat()[:19]}) == [0, 1, 2]
    assert api.http.get("/stream", params={"limit": 2}, headers=client).headers["X-Total-Count"] == "3"


@pytest.mark.parametrize("path", ["/stream", "/stream/summary", "/stream/analytics"])
@pytest.mark.parametrize("field", ["from", "to"])
def test_an_instant_that_is_none_is_400(shop: Api, path: str, field: str) -> None:
    """The detail names the parameter."""
    answer = shop.http.get(path, params={field: "yesterday"}, headers=shop.new_client())
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(f"{field}: ")


def test_summary(api: Api, client: Headers) -> None:
    """Counts by status and the exact sums over all streams; cost keys are always there, null where currencies differ or
    nothing was priced; nothing at all without a call."""
    empty = api.http.get("/stream/summary", headers=client).json()
    assert empty == {"streaming": 0, "completed": 0, "error": 0, "total": 0, "processingMetrics": None}
    for _ in range(2):
        api.http.post("/stream", json=body(), headers=client)
    stored(api, client, make_stream(client_id=client["client_id"]))

    shown = api.http.get("/stream/summary", headers=client).json()
    TypeAdapter(StreamSummaryResponse).validate_python(shown)
    metrics = shown["processingMetrics"]
    assert (shown["streaming"], shown["completed"], shown["error"], shown["total"]) == (1, 2, 0, 3)
    assert (metrics["inputTokens"], metrics["outputTokens"], metrics["totalTokens"]) == (20, 100, 120)
    assert metrics["totalCost"] == metrics["inputCost"] + metrics["outputCost"] == pytest.approx(2 * 0.000525)
    assert api.http.get("/stream/summary", params={"status": "streaming"}, headers=client).json()["total"] == 1

    api.new_model(name="euros", cost={"tokens": 1, "currency": "EUR", "input": 1, "output": 1})
    api.http.post("/stream", json=body(model="euros"), headers=client)
    metrics = api.http.get("/stream/summary", headers=client).json()["processingMetrics"]
    assert metrics["currency"] == "multiple currencies"
    assert [metrics[name] for name in ("inputCost", "outputCost", "totalCost")] == [None] * 3


def test_analytics(api: Api, client: Headers) -> None:
    """Completed streams as points and in groups of model, reference and set of prompts, with their sums and range."""
    prompts = [api.new_prompt(client, prompt=text)["promptId"] for text in ("one", "two")]
    for ids in (prompts, prompts[::-1], []):
        asked = body(additionalPrompts=ids, clientReference={"team": "red"} if ids else None)
        assert api.http.post("/stream", json=asked, headers=client).status_code == 200
    stored(api, client, make_stream(client_id=client["client_id"]))

    found = api.http.get("/stream/analytics", params={"from": "2020-01-01", "limit": 2}, headers=client)
    shown = found.json()

    TypeAdapter(StreamAnalyticsResponse).validate_python(shown)
    assert (shown["totalCount"], len(shown["dataPoints"]), found.headers["X-Total-Count"]) == (3, 2, "3")
    assert shown["dataPoints"][0]["processingMetrics"]["totalTokens"] == 60
    large, small = shown["groups"]
    assert (large["count"], large["promptIds"], large["clientReference"]) == (2, sorted(prompts), {"team": "red"})
    assert (small["count"], small["promptIds"], small["clientReference"]) == (1, None, None)
    assert large["aggregatedMetrics"]["totalTokens"] == 120
    assert large["aggregatedMetrics"]["totalCost"] == pytest.approx(2 * 0.000525)
    assert shown["dateRange"] == {"from": "2020-01-01T00:00:00Z", "to": None}
