"""Anthropic's own client, unchanged but for its base URL and key, against a real server process."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.support.api import ADMIN
from tests.support.backends import Servers
from tests.support.fake_provider import Rule, fault
from tests.support.fake_provider.faults import TOOL_ARGUMENTS
from tests.support.fake_provider.server import PLAIN_ANSWER
from tests.support.vendor_service import Served, vendor_service

MODEL = "Anthropic"
ASKED: Any = [{"role": "user", "content": "Say something."}]
TOOLS: Any = [{"name": "look", "description": "out of the window", "input_schema": {"type": "object"}}]


@pytest.fixture(scope="module")
def served(storage_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with vendor_service(storage_servers, tmp_path_factory.mktemp("service")) as found:
        yield found


@pytest.fixture(autouse=True)
def _as_new(served: Served) -> Iterator[None]:
    yield
    served.renew()


def client(served: Served, **options: Any) -> anthropic.Anthropic:
    http = anthropic.DefaultHttpxClient(trust_env=False)
    given = {"api_key": served.key, "max_retries": 0, **options}
    return anthropic.Anthropic(base_url=served.url.removesuffix("/v1"), http_client=http, **given)


def test_a_whole_answer(served: Served) -> None:
    """It is the vendor's own, with the name of the model that was asked for; headers name the request and its job, and
    what the client sent reached the provider as it was, but for the model's name and limits."""
    with client(served) as sdk:
        raw = sdk.messages.with_raw_response.create(
            model=MODEL,
            max_tokens=100,
            system=[{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
            messages=ASKED,
            stop_sequences=["END"],
            thinking={"type": "disabled"},
            metadata={"user_id": "u"},
            extra_body={"not_known_yet": {"deep": [1]}},
        )
    answer = raw.parse()
    assert [block.text for block in answer.content if block.type == "text"] == [PLAIN_ANSWER]
    assert (answer.type, answer.role, answer.model, answer.stop_reason) == ("message", "assistant", MODEL, "end_turn")
    assert answer.usage.output_tokens > 0
    assert raw.headers["request-id"] == raw.headers["x-correlation-id"] == answer._request_id
    [sent] = [call.body for call in served.fake.seen.calls]
    assert (sent["model"], sent["max_tokens"], sent["stop_sequences"]) == ("fake", 100, ["END"])
    assert (sent["thinking"], sent["metadata"]) == ({"type": "disabled"}, {"user_id": "u"})
    assert sent["not_known_yet"] == {"deep": [1]}
    assert "stream" not in sent
    job = served.replica.http.get(f"/jobs/{raw.headers['x-job-id']}", headers=ADMIN).json()
    assert (job["status"], job["endpoint"], job["operation"]) == ("PROCESSED", "/v1/messages", "messages")
    assert job["processingMetrics"]["totalCost"] > 0


def test_streams(served: Served) -> None:
    """Events come in Anthropic's order and make the whole message, by the helper and plainly; the record has it all."""
    with client(served) as sdk:
        with sdk.messages.stream(model=MODEL, max_tokens=100, messages=ASKED) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
            stream_id = stream.response.headers["x-stream-id"]
        kinds = [each.type for each in sdk.messages.create(model=MODEL, max_tokens=100, messages=ASKED, stream=True)]
    assert text == PLAIN_ANSWER
    assert (final.model, final.stop_reason, final.usage.output_tokens > 0) == (MODEL, "end_turn", True)
    middle = kinds[2:-3]
    assert (kinds[:2], set(middle)) == (["message_start", "content_block_start"], {"content_block_delta"})
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    record = served.replica.http.get(f"/stream/{stream_id}", headers=ADMIN).json()
    assert (record["status"], record["responseData"]) == ("completed", {"content": PLAIN_ANSWER})
    assert record["processingMetrics"]["outputTokens"] == final.usage.output_tokens


def test_a_repeated_stream_with_a_key(served: Served) -> None:
    """A stream that has ended well is said again, event by event and without a call."""
    served.fake.add(Rule(fault("tools")))
    asked: Any = {"max_tokens": 100, "messages": ASKED, "tools": TOOLS, "extra_headers": {"Idempotency-Key": "once"}}
    with client(served) as sdk:
        answers = []
        for replayed in (None, "true"):
            with sdk.messages.stream(model=MODEL, **asked) as stream:
                answers.append(stream.get_final_message())
                assert stream.response.headers.get("idempotency-replayed") == replayed
    assert answers[0] == answers[1]
    assert [block.type for block in answers[1].content] == ["text", "tool_use"]
    assert served.fake.seen.total == 1


def test_tools(served: Served) -> None:
    """Calls of tools come whole and in pieces; answered in turn, the model goes on."""
    served.fake.add(Rule(fault("tools")))
    with client(served) as sdk:
        whole = sdk.messages.create(model=MODEL, max_tokens=100, messages=ASKED, tools=TOOLS)
        with sdk.messages.stream(model=MODEL, max_tokens=100, messages=ASKED, tools=TOOLS) as stream:
            streamed = stream.get_final_message()
        for answer in (whole, streamed):
            [call] = [block for block in answer.content if block.type == "tool_use"]
            assert (answer.stop_reason, call.name, call.input) == ("tool_use", "look", json.loads(TOOL_ARGUMENTS))
        served.fake.script.clear()
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "Rain."}
        turns: Any = [*ASKED, {"role": "assistant", "content": whole.content}, {"role": "user", "content": [result]}]
        answer = sdk.messages.create(model=MODEL, max_tokens=100, messages=turns, tools=TOOLS)
    assert answer.content[0].text == PLAIN_ANSWER  # type: ignore[union-attr]


def test_the_asynchronous_client(served: Served) -> None:
    """Whole and streamed answers of ten requests at a time."""

    async def ask(sdk: anthropic.AsyncAnthropic) -> tuple[Any, str]:
        whole = await sdk.messages.create(model=MODEL, max_tokens=100, messages=ASKED)
        async with sdk.messages.stream(model=MODEL, max_tokens=100, messages=ASKED) as stream:
            return whole.content[0], "".join([text async for text in stream.text_stream])

    async def run() -> list[tuple[Any, str]]:
        http = anthropic.DefaultAsyncHttpxClient(trust_env=False)
        base = served.url.removesuffix("/v1")
        async with anthropic.AsyncAnthropic(
            base_url=base, auth_token=served.key, api_key=None, http_client=http
        ) as sdk:
            return await asyncio.gather(*(ask(sdk) for _ in range(10)))

    assert [(whole.text, streamed) for whole, streamed in asyncio.run(run())] == [(PLAIN_ANSWER, PLAIN_ANSWER)] * 10


def test_errors_are_the_sdks_own(served: Served) -> None:
    """A wrong key, an unknown model, a wrong body and a model of another vendor are the SDK's classes, with Anthropic's
    type and a text that names the field; no provider was called."""
    ask = {"model": MODEL, "max_tokens": 100, "messages": ASKED}
    wrong: list[tuple[dict[str, Any], type[anthropic.APIStatusError], str, str]] = [
        ({"model": "none"}, anthropic.NotFoundError, "not_found_error", "none"),
        ({"messages": []}, anthropic.BadRequestError, "invalid_request_error", "messages"),
        ({"max_tokens": 0}, anthropic.BadRequestError, "invalid_request_error", "max_tokens"),
        ({"extra_body": {"max_tokens": "50"}}, anthropic.BadRequestError, "invalid_request_error", "valid integer"),
        ({"extra_body": {"temperature": "0.5"}}, anthropic.BadRequestError, "invalid_request_error", "valid number"),
        ({"model": "OpenAI"}, anthropic.BadRequestError, "invalid_request_error", "/v1/chat/completions"),
    ]
    for stream in (False, True):
        with client(served) as sdk:
            for fields, kind, name, word in wrong:
                with pytest.raises(kind) as raised:
                    sdk.messages.create(**{**ask, **fields}, stream=stream)
                assert raised.value.body["error"]["type"] == name  # type: ignore[index]
                assert word in raised.value.message
        with client(served, api_key="sk-wrong") as sdk, pytest.raises(anthropic.AuthenticationError) as refused:
            sdk.messages.create(**ask, stream=stream)
        assert refused.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
    assert served.fake.seen.total == 0


def test_a_stream_that_breaks_off(served: Served) -> None:
    """What came before the provider failed is read, and then the SDK raises an APIError: it is no whole answer."""
    served.fake.add(Rule(fault("broken_off")))
    pieces: list[str] = []
    with client(served) as sdk, pytest.raises(anthropic.APIError):  # noqa: PT012 - raised while it is read
        for event in sdk.messages.create(model=MODEL, max_tokens=100, messages=ASKED, stream=True):
            pieces += [event.delta.text] if event.type == "content_block_delta" else []  # type: ignore[union-attr]
    assert 0 < len("".join(pieces)) < len(PLAIN_ANSWER)


def test_a_provider_that_never_hangs_up(served: Served) -> None:
    """The last event ends the answer: nobody waits for the end of the connection, and the record is whole."""
    served.fake.add(Rule(fault("lingers")))
    with client(served) as sdk, sdk.messages.stream(model=MODEL, max_tokens=9, messages=ASKED) as stream:
        assert stream.get_final_text() == PLAIN_ANSWER
        stream_id = stream.response.headers["x-stream-id"]
    served.fake.seen.wait_until(lambda seen: seen.hung_up == 1, timeout=20)
    record = served.replica.http.get(f"/stream/{stream_id}", headers=ADMIN).json()
    assert (record["status"], record["responseData"]) == ("completed", {"content": PLAIN_ANSWER})


def test_a_router_over_several_vendors(served: Served) -> None:
    """Models that cannot take a message are passed by, whichever is tried first; with none that can it is a 400."""
    for name, targets in (("mixed", ("OpenAI", "Gemini", MODEL)), ("others", ("OpenAI", "Gemini"))):
        router = {"name": name, "sdk": "router", "strategy": "weighted", "targets": [{"model": one} for one in targets]}
        answer = served.replica.http.post("/models", json=router, headers=ADMIN)
        assert answer.status_code == 201, answer.text
    with client(served) as sdk:
        for _ in range(5):
            assert sdk.messages.create(model="mixed", max_tokens=9, messages=ASKED).model == "mixed"
            with sdk.messages.stream(model="mixed", max_tokens=9, messages=ASKED) as stream:
                assert stream.get_final_text() == PLAIN_ANSWER
        with pytest.raises(anthropic.BadRequestError, match="Messages API"):
            sdk.messages.create(model="others", max_tokens=9, messages=ASKED)


def test_betas_are_handed_on(served: Served) -> None:
    """The header of the SDK's beta methods reaches the provider; names that cannot be are refused."""
    with client(served) as sdk:
        answer = sdk.beta.messages.create(model=MODEL, max_tokens=9, messages=ASKED, betas=["one-2025", "two.2"])
        assert answer.content[0].text == PLAIN_ANSWER  # type: ignore[union-attr]
        assert [call.betas for call in served.fake.seen.calls] == ["one-2025,two.2"]
        with pytest.raises(anthropic.BadRequestError, match="anthropic-beta"):
            sdk.messages.create(model=MODEL, max_tokens=9, messages=ASKED, extra_body={"anthropic_beta": ["a\r\nb"]})


def test_what_the_provider_says_no_to(served: Served) -> None:
    """Its 400 is the client's, told once; a limit that outlasts the caller's patience is a RateLimitError, and a key
    that the vendor refuses the service's own fault."""
    ask: dict[str, Any] = {"model": MODEL, "max_tokens": 100, "messages": ASKED}
    with client(served) as sdk:
        served.fake.add(Rule(fault("status", code=400)))
        for stream in (False, True):
            served.fake.seen.reset()
            with pytest.raises(anthropic.BadRequestError):
                sdk.messages.create(**ask, stream=stream)
            assert served.fake.seen.total == 1
        served.fake.script.clear()
        served.fake.add(Rule(fault("status", code=401)))
        with pytest.raises(anthropic.InternalServerError):
            sdk.messages.create(**ask)
        served.fake.script.clear()
        served.fake.add(Rule(fault("rate_limit", seconds=3)))
        with pytest.raises(anthropic.RateLimitError) as raised:
            sdk.messages.create(**ask, extra_headers={"x-timeout-seconds": "1"})
        assert 0 < float(raised.value.response.headers["retry-after"]) <= 120
