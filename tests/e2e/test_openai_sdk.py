"""OpenAI's own clients, unchanged but for their base URL, against a real server process and models of every vendor."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.api import ADMIN
from tests.support.backends import Servers
from tests.support.fake_provider import Rule, fault
from tests.support.fake_provider.faults import TOOL_ARGUMENTS
from tests.support.fake_provider.server import PLAIN_ANSWER
from tests.support.vendor_service import VENDORS, Served, vendor_model, vendor_service
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
JAVASCRIPT = ROOT / ".cache" / "openai-js" / "package.json"
LONG = 60_000
"""Words of an answer that no socket's buffers hold: each becomes a chunk of a hundred bytes and more."""
ASKED = "Say something."
TOOLS: Any = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
MESSAGES: Any = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": ASKED}]


@pytest.fixture(scope="module")
def served(storage_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with vendor_service(storage_servers, tmp_path_factory.mktemp("service")) as found:
        yield found


@pytest.fixture(autouse=True)
def _as_new(served: Served) -> Iterator[None]:
    yield
    served.renew()


def test_models_are_listed_and_found(served: Served) -> None:
    """The SDK's pages of models hold those of every vendor; one is found by its name."""
    with served.sdk() as sdk:
        assert [model.id for model in sdk.models.list()] == list(VENDORS)
        assert sdk.models.retrieve("Gemini").owned_by == "gemini"


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_whole_answer_of_every_vendor(served: Served, vendor: str) -> None:
    """Text, finish reason and usage come in OpenAI's shape; headers name the request and the job that it became."""
    with served.sdk() as sdk:
        raw = sdk.chat.completions.with_raw_response.create(model=vendor, messages=MESSAGES, temperature=0.5)
        answer = raw.parse()
    assert answer.choices[0].message.content == PLAIN_ANSWER
    assert (answer.choices[0].finish_reason, answer.model, answer.object) == ("stop", vendor, "chat.completion")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert raw.request_id == raw.headers["x-correlation-id"]
    job = served.replica.http.get(f"/jobs/{raw.headers['x-job-id']}", headers=ADMIN).json()
    assert (job["status"], job["endpoint"], job["model"]) == ("PROCESSED", "/v1/chat/completions", vendor)
    assert job["processingMetrics"] is not None


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_streamed_answer_of_every_vendor(served: Served, vendor: str) -> None:
    """The pieces make the whole answer, all chunks have one id, and the last one tells the usage."""
    with served.sdk() as sdk:
        chunks = list(
            sdk.chat.completions.create(
                model=vendor, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
            )
        )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == PLAIN_ANSWER
    assert {(chunk.id, chunk.model, chunk.object) for chunk in chunks} == {
        (chunks[0].id, vendor, "chat.completion.chunk")
    }
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens > 0


def test_the_asynchronous_client(served: Served) -> None:
    """Whole and streamed answers of ten requests at a time reach the asynchronous client."""

    async def ask(sdk: openai.AsyncOpenAI, vendor: str) -> tuple[str | None, str]:
        whole = await sdk.chat.completions.create(model=vendor, messages=MESSAGES)
        stream = await sdk.chat.completions.create(model=vendor, messages=MESSAGES, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
        return whole.choices[0].message.content, "".join(pieces)

    async def run() -> list[tuple[str | None, str]]:
        http = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with openai.AsyncOpenAI(base_url=served.url, api_key=served.key, http_client=http) as sdk:
            return await asyncio.gather(*(ask(sdk, VENDORS[number % len(VENDORS)]) for number in range(10)))

    assert asyncio.run(run()) == [(PLAIN_ANSWER, PLAIN_ANSWER)] * 10


@pytest.mark.parametrize("vendor", VENDORS)
def test_tools_of_every_vendor(served: Served, vendor: str) -> None:
    """Calls of tools come whole and in pieces, which the SDK puts together; answered in turn, the model goes on."""
    with served.sdk() as sdk:
        served.fake.add(Rule(fault("tools")))
        whole = sdk.chat.completions.create(model=vendor, messages=MESSAGES, tools=TOOLS)
        with sdk.chat.completions.stream(model=vendor, messages=MESSAGES, tools=TOOLS) as stream:
            streamed = stream.get_final_completion()
        for choice in (whole.choices[0], streamed.choices[0]):
            [call] = choice.message.tool_calls or ()
            assert (choice.finish_reason, call.type) == ("tool_calls", "function")
            assert (call.function.name, json.loads(call.function.arguments)) == ("look", json.loads(TOOL_ARGUMENTS))
        served.fake.script.clear()
        said = whole.choices[0].message
        [call] = said.tool_calls or ()
        turns = [*MESSAGES, said.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "Rain."}]
        answer = sdk.chat.completions.create(model=vendor, messages=turns, tools=TOOLS)
    assert answer.choices[0].message.content == PLAIN_ANSWER


def test_a_stream_that_breaks_off(served: Served) -> None:
    """What came before the provider failed is read, and then the SDK raises an APIError: it is no whole answer."""
    served.fake.add(Rule(fault("broken_off")))
    pieces: list[str] = []
    with served.sdk() as sdk, pytest.raises(openai.APIError) as raised:  # noqa: PT012 - raised while it is read
        for chunk in sdk.chat.completions.create(model="OpenAI", messages=MESSAGES, stream=True):
            pieces += [chunk.choices[0].delta.content or ""]
    assert type(raised.value) is openai.APIError
    assert 0 < len("".join(pieces)) < len(PLAIN_ANSWER)


def test_a_key_that_is_wrong(served: Served) -> None:
    """The SDK raises its AuthenticationError, with the code that OpenAI's API has for it."""
    with served.sdk(api_key="sk-wrong") as sdk, pytest.raises(openai.AuthenticationError) as raised:
        sdk.chat.completions.create(model="OpenAI", messages=MESSAGES)
    assert raised.value.code == "invalid_api_key"


def test_a_model_that_does_not_exist(served: Served) -> None:
    """Whole or streamed, the SDK raises its NotFoundError before anything else happens."""
    with served.sdk() as sdk:
        for stream in (False, True):
            with pytest.raises(openai.NotFoundError) as raised:
                sdk.chat.completions.create(model="gpt-none", messages=MESSAGES, stream=stream)
            assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


def test_a_request_that_is_wrong(served: Served) -> None:
    """What is wrong with a body is a BadRequestError that names the parameter; no provider was called."""
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "messages[0].role"),
        ({"temperature": 3}, "temperature"),
        ({"model": "Anthropic", "n": 2}, "n"),
        ({"model": "Anthropic", "logprobs": True}, "logprobs"),
    ]
    with served.sdk() as sdk:
        for fields, param in wrong:
            with pytest.raises(openai.BadRequestError) as raised:
                sdk.chat.completions.create(**{"model": "OpenAI", "messages": MESSAGES, **fields})
            assert raised.value.param == param, raised.value.message
    assert served.fake.seen.total == 0


def test_what_the_provider_refuses_is_the_clients_error(served: Served) -> None:
    """A vendor's 400 reaches the client as one, whole or streamed: it is told what is wrong, once."""
    served.fake.add(Rule(fault("status", code=400)))
    with served.sdk(max_retries=2) as sdk:
        for stream in (False, True):
            served.fake.seen.reset()
            with pytest.raises(openai.BadRequestError):
                sdk.chat.completions.create(model="OpenAI", messages=MESSAGES, stream=stream)
            assert served.fake.seen.total == 1


def test_a_provider_that_fails_for_good(served: Served) -> None:
    """Attempts that all fail end as InternalServerError, of which the job knows each call."""
    served.fake.add(Rule(fault("status", code=401)))
    with served.sdk() as sdk, pytest.raises(openai.InternalServerError) as raised:
        sdk.chat.completions.create(model="OpenAI", messages=MESSAGES)
    assert raised.value.status_code == 502


def test_a_limit_that_is_not_over_in_time(served: Served) -> None:
    """A provider's rate limit that outlasts the caller's patience is a RateLimitError, and nothing is called later."""
    served.fake.add(Rule(fault("rate_limit", seconds=60)))
    with served.sdk() as sdk, pytest.raises(openai.RateLimitError) as raised:
        sdk.chat.completions.create(model="vLLM", messages=MESSAGES, extra_headers={"x-timeout-seconds": "2"})
    assert raised.value.code == "rate_limit_exceeded"
    assert 0 < float(raised.value.response.headers["retry-after"]) <= 120
    canceled = served.replica.http.get("/jobs?status=CANCELED&order=desc&limit=1", headers=ADMIN).json()
    assert [job["model"] for job in canceled] == ["vLLM"]


def test_a_repeated_request_with_a_key(served: Served) -> None:
    """The same key gives the same answer and no second call; with another body it is refused."""
    with served.sdk() as sdk:
        headers = {"Idempotency-Key": "once"}
        first, second = (
            sdk.chat.completions.with_raw_response.create(model="OpenAI", messages=MESSAGES, extra_headers=headers)
            for _ in range(2)
        )
        assert first.parse() == second.parse()
        assert second.headers["idempotency-replayed"] == "true"
        assert served.fake.seen.total == 1
        with pytest.raises(openai.UnprocessableEntityError) as raised:
            sdk.chat.completions.create(model="Gemini", messages=MESSAGES, extra_headers=headers)
    assert raised.value.code == "idempotency_key_reused"


def test_a_repeated_stream_with_a_key(served: Served) -> None:
    """A stream that has ended well is said again without a call, calls of tools and usage included."""
    served.fake.add(Rule(fault("tools")))
    asked: Any = {"messages": MESSAGES, "tools": TOOLS, "stream": True, "stream_options": {"include_usage": True}}
    headers = {"Idempotency-Key": "once, streamed"}
    with served.sdk() as sdk:
        create = sdk.chat.completions.with_raw_response.create
        raw = create(model="OpenAI", **asked, extra_headers=headers)
        chunks = list(raw.parse())
        repeated = create(model="OpenAI", **asked, extra_headers=headers)
        again = list(repeated.parse())
    assert raw.headers.get("idempotency-replayed") is None
    assert repeated.headers["idempotency-replayed"] == "true"
    assert served.fake.seen.total == 1
    [call] = again[0].choices[0].delta.tool_calls
    assert json.loads(call.function.arguments) == json.loads(TOOL_ARGUMENTS)
    assert again[-2].choices[0].finish_reason == "tool_calls"
    assert (again[-1].id, again[-1].usage) == (chunks[-1].id, chunks[-1].usage)


def test_hanging_up_drops_the_call(served: Served) -> None:
    """A caller that gives up, whole or streamed, is not waited for: the provider sees its connection closed."""
    served.fake.hold()
    with served.sdk(timeout=1.0) as sdk:
        for stream in (False, True):
            with pytest.raises(openai.APITimeoutError):
                sdk.chat.completions.create(model="OpenAI", messages=MESSAGES, stream=stream)
    eventually(lambda: served.fake.seen.hung_up >= 2, within=20, what="both calls dropped")


def test_embeddings(served: Served) -> None:
    """Vectors come as the SDK asks for them; a provider that has none is a clear 400."""
    with served.sdk() as sdk:
        answer = sdk.embeddings.create(model="OpenAI", input=["one", "two"])
        assert [len(each.embedding) for each in answer.data] == [len(answer.data[0].embedding)] * 2
        assert all(isinstance(number, float) for number in answer.data[0].embedding)
        assert answer.usage.total_tokens > 0
        with pytest.raises(openai.BadRequestError, match="embeddings"):
            sdk.embeddings.create(model="Anthropic", input="one")


def test_limits_are_told_as_openai_tells_them(served: Served) -> None:
    """A model's own limits are in the headers by which OpenAI tells its."""
    limited = {**vendor_model("vLLM", served.fake), "name": "limited", "limits": {"requestsPerMinute": 600}}
    assert served.replica.http.post("/models", json=limited, headers=ADMIN).status_code == 201
    with served.sdk() as sdk:
        raw = sdk.chat.completions.with_raw_response.create(model="limited", messages=MESSAGES)
    assert raw.headers["x-ratelimit-limit-requests"] == "600"
    assert 0 <= int(raw.headers["x-ratelimit-remaining-requests"]) <= 600
    assert raw.headers["x-ratelimit-reset-requests"].endswith("s")
    made = next(each for each in served.replica.http.get("/models", headers=ADMIN).json() if each["name"] == "limited")
    assert served.replica.http.delete(f"/models/{made['model_id']}", headers=ADMIN).status_code == 204


def test_the_javascript_client(served: Served) -> None:
    """Models, whole and streamed answers and errors reach OpenAI's client for JavaScript as well."""
    assert JAVASCRIPT.exists() or JAVASCRIPT.parent.exists(), "OpenAI's JavaScript client is not installed: make test"
    path = os.pathsep.join((os.environ["PATH"], str(Path(sys.executable).parent)))
    script = Path(__file__).with_name("openai_client.mjs")
    command = ["node", str(script), str(JAVASCRIPT), served.url, served.key, "Anthropic"]
    ended = subprocess.run(
        command, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    got = json.loads(ended.stdout)
    assert set(got["models"]) == set(VENDORS)
    assert (got["whole"], got["streamed"]) == (PLAIN_ANSWER, PLAIN_ANSWER)
    assert got["usage"]["total_tokens"] > 0
    assert (got["refused"]["name"], got["refused"]["status"], got["refused"]["code"]) == (
        "NotFoundError",
        404,
        "model_not_found",
    )
    assert got["refused"]["requestId"]


def test_a_slow_reader_keeps_nobody_waiting(served: Served) -> None:
    """One that takes a long stream byte by byte holds its provider back, not the others; nor is its answer cut."""
    served.fake.add(Rule(fault("text", content="long " * LONG), times=1))
    body = {"model": "OpenAI", "messages": MESSAGES, "stream": True}
    headers = {"Authorization": f"Bearer {served.key}"}
    url = f"{served.url}/chat/completions"
    with served.sdk() as sdk, httpx.stream("POST", url, json=body, headers=headers, trust_env=False) as slow:
        taken = slow.iter_raw(1)
        assert next(taken) == b"d"
        for _ in range(5):
            assert sdk.chat.completions.create(model="OpenAI", messages=MESSAGES).choices
            assert served.replica.http.get("/health/live").status_code == 200
            assert next(taken)
        stored = served.replica.http.get(f"/stream/{slow.headers['x-stream-id']}", headers=ADMIN).json()
        assert stored["completedAt"] is None
        assert b"".join(taken).endswith(b"data: [DONE]\n\n")
