"""What clients ask in OpenAI's shape: how much it is, and what vendors of another format cannot take of it."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from engine.llm import Completion, CompletionRequest, Endpoint, Turn, UnsupportedParameter, Usage
from llm_workers.asking import answer, pieces, prepare
from llm_workers.chats import conversation, format_in
from llm_workers.estimates import Estimator
from llm_workers.prompting import request_to
from llm_workers.providers.http import HttpProvider
from llm_workers.providers.registry import Registry
from llm_workers.providers.scripted import ANSWER, ScriptedProvider
from llm_workers.transport import Transport
from tests.support.factories import NOW, make_model
from tests.support.vendors import chatted

HELLO = {"role": "user", "content": "Hello."}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
BROKEN_CALL = {"id": "x", "function": {"name": "f", "arguments": "{"}}
RESULT = {"role": "tool", "tool_call_id": "c9", "content": "x"}


def sent(sdk: str, **body: Any) -> dict[str, Any]:
    provider = Registry().create(sdk)
    assert isinstance(provider, HttpProvider)
    return provider.body(chatted(Endpoint(sdk=sdk, base_url="", deployment="m"), **body))


@pytest.mark.parametrize("sdk", ["Anthropic", "Gemini"])
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"stop": 5}, "stop"),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "messages[0].role"),
        ({"messages": [HELLO, {"role": "user", "content": 5}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://x"}}]}]},
            "messages[0].content",
        ),
        (
            {
                "messages": [
                    HELLO,
                    {"role": "assistant", "tool_calls": [{"id": "x", "function": {"name": "f", "arguments": "{"}}]},
                ]
            },
            "messages[1].tool_calls[0].function.arguments",
        ),
    ],
)
def test_what_has_no_counterpart(sdk: str, body: dict[str, Any], param: str) -> None:
    """It is refused by a 400 that names it as the client sent it, before anything is sent."""
    with pytest.raises(UnsupportedParameter) as refused:
        sent(sdk, **body)

    assert (refused.value.param, refused.value.status, refused.value.sent) == (param, 400, False)


@pytest.mark.parametrize(
    ("sdk", "body", "param"),
    [
        ("Anthropic", {"n": 2}, "n"),
        ("Anthropic", {"logprobs": True}, "logprobs"),
        ("Anthropic", {"seed": 7}, "seed"),
        ("Anthropic", {"top_p": 0.5}, "top_p"),
        ("Anthropic", {"frequency_penalty": 0.5}, "frequency_penalty"),
        ("Anthropic", {"response_format": {"type": "json_object"}}, "response_format"),
        ("Gemini", {"n": 0}, "n"),
        ("Gemini", {"tools": [FUNCTION], "parallel_tool_calls": False}, "parallel_tool_calls"),
        (
            "Gemini",
            {"messages": [HELLO, {"role": "tool", "tool_call_id": "c9", "content": "x"}]},
            "messages[1].tool_call_id",
        ),
    ],
)
def test_what_one_of_them_cannot_take(sdk: str, body: dict[str, Any], param: str) -> None:
    """Each vendor's own gaps."""
    with pytest.raises(UnsupportedParameter) as refused:
        sent(sdk, **body)

    assert refused.value.param == param


def test_reasoning_models_get_no_temperature() -> None:
    """In a chat neither: they would refuse it, and it is not what clients choose them for."""
    request = chatted(Endpoint(sdk="OpenAI", base_url="", deployment="gpt-5"), temperature=0.2)
    provider = Registry().create("OpenAI")
    assert isinstance(provider, HttpProvider)

    assert "temperature" not in provider.body(replace(request, temperature=0.2))


@pytest.mark.parametrize("sdk", ["Anthropic", "Gemini"])
def test_what_asks_for_nothing(sdk: str) -> None:
    """Defaults that clients spell out, and what is about the bookkeeping at OpenAI, change nothing."""
    plain: dict[str, Any] = {
        "n": 1,
        "logprobs": False,
        "seed": None,
        "frequency_penalty": 0,
        "top_p": None,
        "tools": [],
    }
    kept = {"store": True, "metadata": {"a": "b"}, "stream": True, "stream_options": {"include_usage": True}}

    assert sent(sdk, **plain, **kept) == sent(sdk)


def test_a_conversation_for_anthropic() -> None:
    """Results of tools follow their calls in one message of the user's; the system's texts go beside the messages."""
    body = sent(
        "Anthropic",
        messages=[
            {"role": "system", "content": "One."},
            HELLO,
            {"role": "assistant", "content": None, "tool_calls": [CALL, {**CALL, "id": "c2"}]},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
            {"role": "tool", "tool_call_id": "c2", "content": "2"},
            {"role": "developer", "content": "Two."},
        ],
        tools=[FUNCTION],
        tool_choice="auto",
        parallel_tool_calls=False,
    )

    assert body["system"] == "One.\n\nTwo."
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert [block["type"] for message in body["messages"][1:] for block in message["content"]] == [
        *["tool_use"] * 2,
        *["tool_result"] * 2,
    ]
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert body["max_tokens"] == 4096


def test_thoughts_of_gemini_travel() -> None:
    """A call's signature that the client sends back goes with it, and its result under the function's name."""
    signed = {**CALL, "extra_content": {"google": {"thought_signature": "c2ln"}}}
    body = sent(
        "Gemini",
        messages=[
            HELLO,
            {"role": "assistant", "tool_calls": [signed]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
    )

    called, result = body["contents"][1]["parts"][0], body["contents"][2]["parts"][0]
    assert called == {"functionCall": {"id": "c1", "name": "f", "args": {}}, "thoughtSignature": "c2ln"}
    assert result == {"functionResponse": {"id": "c1", "name": "f", "response": {"output": "sunny"}}}


def test_how_much_a_chat_is() -> None:
    """Texts, tools and calls are counted, a picture as a constant however large it is, an answer for each choice."""
    model = make_model(max_token=100)

    def parts(**chat: Any) -> tuple[int, int]:
        body = {"messages": [{"role": "user", "content": "x" * 3000}], **chat}
        request = request_to(
            "/v1/chat/completions", model, None, body=body, attempt_id="a", timeouts=chatted(ENDPOINT).timeouts
        )
        return Estimator().parts(request)

    given, answered = parts()
    assert (1000 < given < 1300, answered) == (True, 100)
    assert parts(n=3, max_tokens=10) == (given, 30)
    assert parts(tools=[{"type": "function", "function": {"name": "f" * 3000}}])[0] > given + 1000
    pictured = [{"type": "text", "text": "x" * 3000}, {"type": "image_url", "image_url": {"url": "x" * 9_000_000}}]
    assert given + 900 < parts(messages=[{"role": "user", "content": pictured}])[0] < given + 1500


ENDPOINT = Endpoint(sdk="x", base_url="", deployment="m")


def test_for_who_knows_texts_only() -> None:
    """A chat has its texts as a job has them too: system, the user's, and what followed; and its format."""
    chat = {
        "messages": [
            {"role": "developer", "content": "One."},
            {"role": "user", "content": [{"type": "text", "text": "Two."}]},
            {"role": "assistant", "content": "Three."},
            {"role": "user", "content": "Four."},
        ],
        "response_format": {"type": "json_object"},
    }

    assert conversation(chat) == ("One.", "Two.", (Turn("assistant", "Three."), Turn("user", "Four.")))
    assert format_in(chat) == "json"


class Plain:
    """A plug-in that knows no chats and does not stream."""

    needs_key = False

    async def complete(self, request: CompletionRequest) -> Completion:
        return Completion(text=request.user.upper(), usage=Usage(input_tokens=3, output_tokens=2), finish_reason="done")

    async def aclose(self) -> None: ...


def run(provider: Any, request: CompletionRequest) -> tuple[Completion, list[Any]]:
    async def both() -> tuple[Completion, list[Any]]:
        await prepare(provider, request)
        return await answer(provider, request, NOW), [piece async for piece in pieces(provider, request, NOW)]

    return asyncio.run(both())


def test_a_plug_in_that_knows_texts_only() -> None:
    """It gets the texts, and its answer a body; streamed it is one piece and an end. More than texts is refused."""
    model = make_model()

    def asked(**chat: Any) -> CompletionRequest:
        body = {"messages": [HELLO], **chat}
        timeouts = chatted(ENDPOINT).timeouts
        return request_to("/v1/chat/completions", model, None, body=body, attempt_id="a1", timeouts=timeouts)

    whole, [first, end, last] = run(Plain(), asked())

    assert whole == last
    assert whole.body is not None
    assert whole.body["id"] == "chatcmpl-a1"
    assert whole.body["choices"][0]["message"]["content"] == "HELLO."
    assert whole.body["choices"][0]["finish_reason"] == "stop"
    assert whole.body["usage"]["total_tokens"] == 5
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "HELLO."}
    assert end["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    for body in ({"tools": [FUNCTION]}, {"n": 2}):
        with pytest.raises(UnsupportedParameter) as refused:
            run(Plain(), asked(**body))
        assert refused.value.param == next(iter(body))
    with pytest.raises(UnsupportedParameter, match="has no embeddings"):
        run(Plain(), replace(asked(), chat=None, embeds={"input": "a"}))


def test_the_test_provider() -> None:
    """It answers any chat, tools or not, with its fixed text."""

    async def pause(_: float) -> None: ...

    whole, streamed = run(ScriptedProvider(Transport(), pause), chatted(ENDPOINT, tools=[FUNCTION]))

    assert whole.body is not None
    assert whole.body["choices"][0]["message"]["content"] == ANSWER
    assert len(streamed) == 445 + 2
