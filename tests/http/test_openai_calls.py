"""Chat completions and embeddings under /v1: what is refused and how, money, limits, and streams that go wrong."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.jobs.queue import JobQuery
from engine.llm import JsonObject
from tests.http.test_openai_errors import error_of
from tests.support.api import Api, running_api
from tests.support.backends import SQLITE, Servers, fresh_database
from tests.support.fake_provider import FakeProvider, Rule, fault
from tests.support.jobs_http import Shop, open_shop

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
JSON = {"content-type": "application/json"}
HELLO = [{"role": "user", "content": "hello"}]
DEEP: list[Any] = reduce(lambda inner, _: [inner], range(300), [])
AT_ONCE = 5.0
"""Seconds: far less than the ten minutes that a caller here waits."""


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as running:
        yield running


@pytest.fixture
def fake(provider: FakeProvider) -> Iterator[FakeProvider]:
    """The provider as new, whatever the last test had it do."""
    provider.seen.reset()
    yield provider
    provider.release()
    provider.script.clear()


def calling(api: Api, fake: FakeProvider) -> Shop:
    """A shop whose model `chatty` is at the fake provider, and takes 600 calls in a minute."""
    shop, limits = open_shop(api), {"requestsPerMinute": 600}
    api.new_model(name="chatty", sdk="vLLM", endpoint=fake.openai_url, key="default", limits=limits)
    return Shop(api, shop.headers, shop.prompt, "chatty")


@pytest.fixture
def shop(api: Api, fake: FakeProvider) -> Shop:
    return calling(api, fake)


@pytest.fixture
def local(tmp_path: Path, storage_servers: Servers, fake: FakeProvider) -> Iterator[Shop]:
    with fresh_database(SQLITE, storage_servers, tmp_path) as database, running_api(database.open()) as api:
        yield calling(api, fake)


def ask(shop: Shop, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    return shop.call("POST", CHAT, {"model": shop.model, "messages": HELLO, **fields}, headers=headers or {})


def raw(shop: Shop, content: Any, path: str = CHAT) -> httpx.Response:
    """A POST of exactly these bytes."""
    answer: httpx.Response = shop.api.http.post(path, content=content, headers={**shop.headers, **JSON})
    return answer


def events(answer: httpx.Response) -> list[Any]:
    """The data of all events, without [DONE]; comments are left out."""
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("path", [CHAT, EMBEDDINGS])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"\xff\xfe{}",
        b'{"model": "chatty", "input": "\xc3("}',
        b'{"model": "chatty", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model": "chatty", "seed": NaN}',
    ],
    ids=["nothing", "half", "list", "string", "utf-16 mark", "no utf-8", "deep", "nan"],
)
def test_what_is_no_body_is_told_of_the_body(local: Shop, path: str, content: bytes) -> None:
    """Broken JSON, other encodings, a hundred thousand brackets and what is no object are 400 of no parameter."""
    error = error_of(raw(local, content, path), 400)
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_value", None)
    assert "body" in error["message"]
    assert len(error["message"]) < 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": "x" * 256}, "model"),
        ({"messages": "hello"}, "messages"),
        ({"messages": HELLO * 10_001}, "messages"),
        ({"messages": [*HELLO, 7]}, "messages[1]"),
        ({"messages": [*HELLO, *HELLO, {"content": "x"}]}, "messages[2].role"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, None),
        ({"stream": "perhaps"}, "stream"),
        ({"stream_options": 1}, "stream_options"),
        ({"n": 129}, "n"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_what_is_wrong_is_named(local: Shop, fake: FakeProvider, fields: dict[str, Any], param: str | None) -> None:
    """A refusal names the parameter, in a list with its place; nothing is stored and nobody called."""
    content = json.dumps({"model": local.model, "messages": HELLO, **fields}).encode()
    error = error_of(raw(local, content), 400)
    assert error["param"] == param
    assert len(error["message"]) < 500
    assert (local.api.storage.jobs.count(JobQuery()), fake.seen.total) == (0, 0)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [*HELLO, {"role": "user", "content": DEEP}]}, "messages[1].content"),
        ({"tools": DEEP}, "tools"),
        ({"extra": {"of": [DEEP]}}, "extra.of"),
        ({"x" * 1000: DEEP}, "x" * 100),
    ],
)
def test_what_is_nested_too_deeply_is_named(local: Shop, fake: FakeProvider, fields: JsonObject, param: str) -> None:
    """JSON that could not be stored or shown any more is told of the field that has it, whole and streamed."""
    for stream in (False, True):
        error = error_of(ask(local, stream=stream, **fields), 400)
        assert (error["code"], error["param"]) == ("invalid_value", param)
    assert error_of(raw(local, json.dumps({"model": "chatty", "input": DEEP}), EMBEDDINGS), 400)["param"] == "input"
    assert (local.api.storage.jobs.count(JobQuery()), fake.seen.total) == (0, 0)


def test_headers_that_are_wrong_are_named(local: Shop) -> None:
    """So are the headers by which a request says how urgent it is and how long it may take."""
    for name, value in (("x-timeout-seconds", "0"), ("x-timeout-seconds", "soon"), ("x-priority", "0")):
        assert error_of(ask(local, {name: value}), 400)["param"] == name


def test_fifty_megabytes_are_refused(local: Shop) -> None:
    """A body above the limit is 413 in OpenAI's shape, whether it says its length beforehand or not."""
    megabyte = b" " * 1024 * 1024
    for content in (megabyte * 50, iter([megabyte] * 50)):
        assert error_of(raw(local, content), 413)["code"] == "request_too_large"


def test_unknown_fields_go_to_the_provider(local: Shop, fake: FakeProvider) -> None:
    """What Metasync does not know reaches the provider as it came, whole and streamed."""
    for stream in (False, True):
        fake.seen.reset()
        assert ask(local, stream=stream, seed=7, guided_choice=["a", {"b": [1]}]).status_code == 200
        [call] = fake.seen.calls
        assert (call.body["seed"], call.body["guided_choice"]) == (7, ["a", {"b": [1]}])


def test_money_that_is_used_up_is_told_at_once(shop: Shop, fake: FakeProvider) -> None:
    """A client without money is told so, whole and streamed, in a moment although it would wait for ten minutes; its
    SDK is not to try again, nothing is called, and nothing is left that would be later."""
    budget = {"amount": 0.000001, "currency": "USD", "period": "total"}
    path = f"/clients/{shop.client_id}"
    assert shop.api.http.patch(path, json={"budget": budget}, headers=shop.api.admin).status_code == 200
    shop.api.runs.wallets.tick()
    assert ask(shop).status_code == 200
    began = time.monotonic()
    for stream in (False, True, False):
        answer = ask(shop, stream=stream)
        error = error_of(answer, 429)
        assert (error["type"], error["code"]) == ("insufficient_quota", "project_spend_limit_exceeded")
        assert answer.headers["x-should-retry"] == "false"
    assert time.monotonic() - began < AT_ONCE
    assert fake.seen.total == 1
    statuses = [job["status"] for job in shop.call("GET", "/jobs").json()]
    assert sorted(statuses) == ["CANCELED", "CANCELED", "PROCESSED"]


def test_limits_are_told_with_streams_too(local: Shop) -> None:
    """Whole or streamed, an answer tells what is left of the model's limits, and of those it has only."""
    for stream in (False, True):
        headers = ask(local, stream=stream).headers
        assert headers["x-ratelimit-limit-requests"] == "600"
        assert 0 <= int(headers["x-ratelimit-remaining-requests"]) <= 600
        assert headers["x-ratelimit-reset-requests"].endswith("s")
        assert "x-ratelimit-limit-tokens" not in headers


def test_limits_are_told_with_errors_too(local: Shop, fake: FakeProvider) -> None:
    """So does an error, once it is known which model is meant and by whom; before that nobody is told."""
    fake.add(Rule(fault("status", code=400)))
    for stream in (False, True):
        answer = ask(local, stream=stream)
        assert error_of(answer, 400)["type"] == "invalid_request_error"
        assert answer.headers["x-ratelimit-limit-requests"] == "600"
        assert 0 <= int(answer.headers["x-ratelimit-remaining-requests"]) < 600
    unknown = local.api.http.post(CHAT, json={"model": local.model, "messages": HELLO})
    assert error_of(unknown, 401)["code"] == "invalid_api_key"
    for answer in (unknown, ask(local, model="nobody's"), ask(local, n=0)):
        assert not [name for name in answer.headers if name.startswith("x-ratelimit")]


ONCE, STREAMED = {"Idempotency-Key": "once"}, {"stream": True, "stream_options": {"include_usage": True}}


def said(answer: httpx.Response) -> tuple[Any, ...]:
    """What a stream says, in however many chunks, and of which record."""
    *chunks, last = events(answer)
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    ends = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert {chunk["id"] for chunk in chunks} == {last["id"]}
    return answer.headers["X-Stream-Id"], last["id"], "".join(deltas), ends[-1], last["usage"]


def test_a_stream_is_said_again(shop: Shop, fake: FakeProvider) -> None:
    """With an Idempotency-Key the same answer comes once more, from its record and without a call. While it is under
    way that is 409 and a moment to wait; with another body, or not streamed, 422. Another client's key is its own."""
    fake.hold()
    with ThreadPoolExecutor(1) as threads:
        streaming = threads.submit(ask, shop, ONCE, **STREAMED)
        fake.seen.wait_until(lambda seen: seen.in_flight == 1)
        busy = ask(shop, ONCE, **STREAMED)
        fake.release()
        first = streaming.result(AT_ONCE)
    assert (error_of(busy, 409)["code"], busy.headers["Retry-After"]) == ("idempotency_key_in_use", "2")
    again = ask(shop, ONCE, **STREAMED)
    assert said(again) == said(first)
    assert (first.headers.get("Idempotency-Replayed"), again.headers["Idempotency-Replayed"]) == (None, "true")
    for other in ({"stream": True}, {**STREAMED, "seed": 7}, {}):
        assert error_of(ask(shop, ONCE, **other), 422)["code"] == "idempotency_key_reused"
    assert fake.seen.total == 1
    stranger = {"Authorization": f"Bearer {shop.api.new_client()['client_api_key']}", **ONCE}
    body = {"model": shop.model, "messages": HELLO, **STREAMED}
    own = shop.api.http.post(CHAT, json=body, headers=stranger)
    assert said(own)[2:] == said(first)[2:]
    assert said(own)[0] != said(first)[0]
    assert fake.seen.total == 2


def test_a_stream_that_failed_is_tried_again(shop: Shop, fake: FakeProvider) -> None:
    """A failure is no answer: its key stands for another try, and then for the answer of that; nor does a request that
    was refused before anybody was called use it up."""
    assert error_of(ask(shop, ONCE, **STREAMED, model="nobody's"), 404)["code"] == "model_not_found"
    fake.add(Rule(fault("broken_off"), times=1), Rule(fault("status", code=400), times=1))
    assert "error" in events(ask(shop, ONCE, **STREAMED))[-1]
    error_of(ask(shop, ONCE, **STREAMED), 400)
    third = ask(shop, ONCE, **STREAMED)
    assert "Idempotency-Replayed" not in third.headers
    again = ask(shop, ONCE, **STREAMED)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert said(again) == said(third)
    assert fake.seen.total == 3


def test_a_stream_that_fails_before_its_first_word(local: Shop, fake: FakeProvider) -> None:
    """Is an ordinary error, with its status and no event."""
    fake.add(Rule(fault("rate_limit", seconds=90)))
    answer = ask(local, stream=True)
    assert error_of(answer, 429)["code"] == "rate_limit_exceeded"
    assert 0 < int(answer.headers["Retry-After"]) <= 120


def test_a_stream_that_breaks_off(local: Shop, fake: FakeProvider) -> None:
    """Ends with the error as its last event, in OpenAI's body, and without [DONE]: no part is taken for the whole."""
    fake.add(Rule(fault("broken_off")))
    answer = ask(local, stream=True)
    *chunks, last = events(answer)
    assert chunks
    assert last.keys() == {"error"}
    assert last["error"]["type"] == "server_error"
    assert "[DONE]" not in answer.text


def test_a_stream_that_is_quiet_shows_that_it_lives(
    local: Shop, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first word is long in coming there are comments, which clients skip, and then the answer."""
    monkeypatch.setattr("api.core.streamed.QUIET_SECONDS", 0.05)
    fake.add(Rule(fault("delay", seconds=0.4)))
    answer = ask(local, stream=True)
    assert answer.text.startswith(": ping\n\n")
    assert events(answer)[-1]["choices"][0]["finish_reason"] == "stop"
    assert answer.text.endswith("data: [DONE]\n\n")
