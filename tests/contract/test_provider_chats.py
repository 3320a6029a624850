"""OpenAI's chat completions by every provider: one suite, whole and streamed, against the vendors' wire formats."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from pydantic import TypeAdapter

from engine.llm import (
    Complaint,
    Completion,
    CompletionRequest,
    PermanentProviderError,
    TransientProviderError,
    UnsupportedParameter,
    Usage,
)
from llm_workers.providers.http import HttpProvider
from llm_workers.providers.registry import Registry
from tests.support.fake_provider import FakeProvider
from tests.support.fake_provider.faults import TOOL_ARGUMENTS
from tests.support.fake_provider.server import PLAIN_ANSWER
from tests.support.vendors import VENDORS, Vendor, answer, chatted, complete, embedded, error, streamed

ONE_OF_EACH = [each for each in VENDORS if each.sdk in ("OpenAI", "AzureOpenAI", "Anthropic", "Gemini")]
of_each = pytest.mark.parametrize("vendor", ONE_OF_EACH, ids=lambda vendor: vendor.sdk)
with_n = pytest.mark.parametrize(
    "vendor", [each for each in ONE_OF_EACH if each.sdk != "Anthropic"], ids=lambda vendor: vendor.sdk
)


def tool(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "description": "x", "parameters": parameters}}


def both(request: CompletionRequest) -> tuple[Completion, Completion, list[Any]]:
    """A whole answer, the sum of a streamed one, and its chunks. Each is as OpenAI's own types have it."""
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

    whole, result = answer(request), streamed(request)
    assert result.completion is not None, result.error
    for completion in (whole, result.completion):
        assert completion.body is not None
        ChatCompletion.model_validate(completion.body, strict=True)
    about = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    for chunk in result.pieces:
        ChatCompletionChunk.model_validate({**about, **chunk}, strict=True)
    return whole, result.completion, result.pieces


def timeless(completion: Completion) -> dict[str, Any]:
    """The body without what the fake provider tells of a whole answer only, and the time."""
    assert completion.body is not None
    return {name: value for name, value in completion.body.items() if name not in ("created", "usage")}


def test_whole_and_streamed(vendor: Vendor, fake: FakeProvider) -> None:
    """Both give the same body in OpenAI's shape; the chunks have the role once and say the text piece by piece."""
    whole, summed, chunks = both(chatted(vendor.endpoint(fake)))

    assert timeless(whole) == timeless(summed)
    assert whole.text == summed.text == PLAIN_ANSWER
    assert whole.usage == summed.usage == Usage(input_tokens=11, output_tokens=7)
    assert whole.request_id == "req_fake"
    [choice] = whole.body["choices"] if whole.body else []
    assert choice["finish_reason"] == "stop"
    deltas = [each["delta"] for chunk in chunks for each in chunk["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == PLAIN_ANSWER
    assert ["role" in delta for delta in deltas] == [True] + [False] * (len(deltas) - 1)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    call = fake.seen.calls[0]
    assert (call.system, call.user) == ("Be brief.", "Hello.")


@of_each
def test_counts(vendor: Vendor, fake: FakeProvider) -> None:
    """Cached and reasoning tokens are told where OpenAI has them."""
    whole, summed, _ = both(chatted(vendor.endpoint(fake, "m!usage,input=100,output=60,cached=40,reasoning=25")))

    assert whole.usage == summed.usage
    assert whole.body is not None
    assert whole.body["usage"] == {
        "prompt_tokens": 100,
        "completion_tokens": 60,
        "total_tokens": 160,
        "prompt_tokens_details": {"cached_tokens": 40},
        "completion_tokens_details": {"reasoning_tokens": 25},
    }


@pytest.mark.parametrize(("fault", "reason"), [("length", "length"), ("content_filter", "content_filter")])
def test_an_answer_may_be_cut(vendor: Vendor, fake: FakeProvider, fault: str, reason: str) -> None:
    """A limit and a filter are answers, whose finish reason says so."""
    whole, summed, _ = both(chatted(vendor.endpoint(fake, f"m!{fault}")))

    assert timeless(whole) == timeless(summed)
    assert timeless(whole)["choices"][0]["finish_reason"] == reason
    assert whole.text


@of_each
def test_a_refusal_is_an_answer(vendor: Vendor, fake: FakeProvider) -> None:
    """The model's words are there, as a refusal where the vendor tells one from a text, or under a finish reason."""
    whole, summed, _ = both(chatted(vendor.endpoint(fake, "m!refusal")))

    assert timeless(whole) == timeless(summed)
    [choice] = timeless(whole)["choices"]
    assert "I cannot help with that." in (choice["message"]["refusal"], choice["message"]["content"])
    assert choice["message"]["refusal"] or choice["finish_reason"] == "content_filter"


@of_each
def test_tools(vendor: Vendor, fake: FakeProvider) -> None:
    """Calls of tools come with ids, names and arguments as JSON, beside the text, whole and in pieces."""
    request = chatted(vendor.endpoint(fake, "m!tools"), tools=[tool("first"), tool("second")])

    whole, summed, chunks = both(request)

    assert timeless(whole) == timeless(summed)
    [choice] = timeless(whole)["choices"]
    calls = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == PLAIN_ANSWER
    assert [call["function"]["name"] for call in calls] == ["first", "second"]
    assert [orjson.loads(call["function"]["arguments"]) for call in calls] == [orjson.loads(TOOL_ARGUMENTS)] * 2
    assert len({call["id"] for call in calls}) == 2
    parts = [part for chunk in chunks for part in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert {part["index"] for part in parts} == {0, 1}


@with_n
def test_several_answers(vendor: Vendor, fake: FakeProvider) -> None:
    """`n` gives as many choices, by their index in the chunks too; the text is the first one's."""
    whole, summed, chunks = both(chatted(vendor.endpoint(fake), n=2))

    assert timeless(whole) == timeless(summed)
    assert [choice["index"] for choice in timeless(whole)["choices"]] == [0, 1]
    assert whole.text == summed.text == PLAIN_ANSWER
    assert {choice["index"] for chunk in chunks for choice in chunk["choices"]} == {0, 1}


@with_n
def test_logprobs(vendor: Vendor, fake: FakeProvider) -> None:
    """They add up to the text."""
    whole, summed, _ = both(chatted(vendor.endpoint(fake), logprobs=True))

    assert timeless(whole) == timeless(summed)
    tokens = timeless(whole)["choices"][0]["logprobs"]["content"]
    assert "".join(each["token"] for each in tokens) == PLAIN_ANSWER
    assert {each["logprob"] for each in tokens} == {-0.5}


def test_errors(vendor: Vendor, fake: FakeProvider) -> None:
    """They are those of other calls: a wrong request is permanent, a glitch and a stream that breaks off transient."""
    assert type(error(chatted(vendor.endpoint(fake, "m!status,code=400")))) is PermanentProviderError
    if vendor.sdk != "Anthropic":
        assert type(error(chatted(vendor.endpoint(fake, "m!no_choices")))) is TransientProviderError
    broken = streamed(chatted(vendor.endpoint(fake, "m!broken_off")))
    assert isinstance(broken.error, TransientProviderError)
    assert broken.pieces
    assert PLAIN_ANSWER.startswith(broken.error.raw or "nothing")


@of_each
def test_fields_that_nobody_has_heard_of(vendor: Vendor, fake: FakeProvider) -> None:
    """They go to vendors of OpenAI's format as they are, from the first call on; the others refuse them by name."""
    [result] = complete(chatted(vendor.endpoint(fake), novel={"a": [1]}))

    if vendor.sdk in ("Anthropic", "Gemini"):
        assert isinstance(result, UnsupportedParameter)
        assert (result.param, result.status, result.sent) == ("novel", 400, False)
        assert fake.seen.total == 0
    else:
        assert isinstance(result, Completion)
        assert fake.seen.calls[0].body["novel"] == {"a": [1]}


def test_what_the_client_asked_for_is_not_left_out(fake: FakeProvider) -> None:
    """A model that takes no temperature refuses it, each time, in words that the client gets; a limit's name is ours,
    and is mended once."""
    thinker = VENDORS[0].endpoint(fake, "thinker")
    warm = replace(chatted(thinker, temperature=0.5), temperature=0.5)
    limited = replace(chatted(thinker, max_tokens=9), max_tokens=9)

    first, second, third, fourth = complete(warm, warm, limited, limited)

    for refused in (first, second):
        assert type(refused) is PermanentProviderError
        assert refused.complaint == Complaint(
            type="invalid_request_error", code="unsupported_value", param="temperature"
        )
    assert type(third) is TransientProviderError
    assert isinstance(fourth, Completion)
    assert fake.seen.calls[-1].body["max_completion_tokens"] == 9


EMBEDDING = [each for each in VENDORS if each.sdk in ("OpenAI", "AzureOpenAI", "ChatCompletionsClient", "Gemini")]


@pytest.mark.parametrize("vendor", EMBEDDING, ids=lambda vendor: vendor.sdk)
@pytest.mark.parametrize("form", ["float", "base64"])
def test_embeddings(vendor: Vendor, fake: FakeProvider, form: str) -> None:
    """Each input has its vector, as numbers or as OpenAI's base64; only input is counted."""
    from openai.types import CreateEmbeddingResponse

    result = embedded(vendor.endpoint(fake), input=["a", "bcd"], dimensions=2, encoding_format=form)

    assert isinstance(result, Completion)
    made = CreateEmbeddingResponse.model_validate({**(result.body or {}), "data": []})
    assert made.usage.prompt_tokens == 2
    assert result.usage == Usage(input_tokens=2)
    vectors = [each["embedding"] for each in (result.body or {})["data"]]
    assert vectors == ([[1.0, 0.5], [3.0, 0.5]] if form == "float" else ["AACAPwAAAD8=", "AABAQAAAAD8="])


def test_where_embeddings_are_none(fake: FakeProvider) -> None:
    """Anthropic has none, and Gemini embeds no tokens: said by name, without a call. Errors are as for other calls."""
    anthropic, gemini = (next(each for each in VENDORS if each.sdk == sdk) for sdk in ("Anthropic", "Gemini"))

    none = embedded(anthropic.endpoint(fake), input="a")
    tokens = embedded(gemini.endpoint(fake), input=[1, 2])
    assert isinstance(none, UnsupportedParameter)
    assert "Anthropic has no embeddings" in str(none)
    assert isinstance(tokens, UnsupportedParameter)
    assert tokens.param == "input"
    assert fake.seen.total == 0
    assert isinstance(embedded(VENDORS[0].endpoint(fake, "m!status,code=503"), input="a"), TransientProviderError)


PICTURE = "data:image/png;base64,iVBORw0KGgo="
CONVERSATION = [
    {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://example.com/b.png"}},
        ],
    },
    {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [
            {"id": f"c{number}", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
            for number in (1, 2)
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
    {"role": "tool", "tool_call_id": "c2", "content": '{"is": "a dog"}'},
    {"role": "user", "content": "Well?"},
]
SHAPES: list[dict[str, Any]] = [
    {},
    {"messages": CONVERSATION, "tools": [tool("look")], "tool_choice": "required"},
    {"tools": [tool("look")], "tool_choice": {"type": "function", "function": {"name": "look"}}, "stop": "END"},
    {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": tool("f")["function"]["parameters"]},
        }
    },
    {"reasoning_effort": "low", "stop": ["a", "b"], "user": "someone"},
]


@pytest.mark.parametrize("shape", SHAPES, ids="+".join)
@of_each
def test_the_sdk_would_send_the_same(vendor: Vendor, fake: FakeProvider, shape: dict[str, Any]) -> None:
    """The translated body is one that the vendor's own client sends as it is: with tools, pictures, results."""
    from anthropic.types.message_create_params import MessageCreateParamsNonStreaming

    request = chatted(replace(vendor.endpoint(fake), base_url="https://resource.example.com"), **shape)
    provider = Registry().create(vendor.sdk)
    assert isinstance(provider, HttpProvider)

    rehearsal = provider.rehearse(request)

    assert camel(orjson.loads(rehearsal.body)) == camel(provider.body(request))
    if vendor.sdk == "Anthropic":
        TypeAdapter(MessageCreateParamsNonStreaming).validate_python(provider.body(request))


def camel(value: Any) -> Any:
    """Google's client spells some names in snake case; its API takes either."""
    if isinstance(value, list):
        return [camel(each) for each in value]
    if isinstance(value, dict):
        return {_camel(name): camel(each) for name, each in value.items()}
    return value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
