"""What providers send: the body that the vendor's SDK would make, and the rules by which endpoints differ."""

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import orjson
import pytest

from engine.llm import (
    Completion,
    Endpoint,
    TransientProviderError,
    Turn,
    Usage,
)
from llm_workers.providers.http import HttpProvider
from llm_workers.providers.registry import Registry
from tests.support.fake_provider import FakeProvider
from tests.support.fake_provider.server import PLAIN_ANSWER
from tests.support.vendors import KEY, SCHEMA, VENDORS, Vendor, answer, asked, complete

ANTHROPIC = next(each for each in VENDORS if each.sdk == "Anthropic")
TURNS = (Turn("assistant", "Seven."), Turn("user", "As JSON, please."))
SHAPES: list[dict[str, Any]] = [
    {},
    {"response_format": "text"},
    {"response_format": {"type": "json_schema", "schema": SCHEMA}},
    {"system": ""},
    {"temperature": None, "max_tokens": None},
    {"system": "äöü 漢字 \u2028", "user": '"quoted" \\ \n end'},
    {"max_tokens": 200_000},
    {"turns": TURNS},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("base_url", ["", "http://127.0.0.1:9/v1"])
def test_the_sdk_would_send_the_same(vendor: Vendor, base_url: str, shape: dict[str, Any]) -> None:
    """The body that goes out is the one the vendor's own client makes of the same arguments."""
    if vendor.sdk in ("AzureOpenAI", "ChatCompletionsClient"):
        base_url = base_url or "https://resource.example.com"
    endpoint = Endpoint(sdk=vendor.sdk, base_url=base_url, deployment="m", api_version=vendor.version, key=KEY)
    request = asked(endpoint, **shape)
    provider = Registry().create(vendor.sdk)
    assert isinstance(provider, HttpProvider)

    rehearsal = provider.rehearse(request)

    assert orjson.loads(rehearsal.body) == provider.body(request)
    assert KEY not in repr(rehearsal)
    assert KEY not in str(rehearsal.url)


def test_a_conversation(vendor: Vendor, fake: FakeProvider) -> None:
    """Turns go as messages of their own after the user's, whoever said them."""
    answer(asked(vendor.endpoint(fake), turns=TURNS))

    (call,) = fake.seen.calls
    assert call.turns == tuple((turn.role, turn.text) for turn in TURNS)
    assert call.user == '{"text": "hello"}\nAs JSON, please.'


class _Sent(Exception):
    """Ends a call of Azure's client once it has said what it would send."""


def test_azures_own_client_would_send_the_same() -> None:
    """URL, body, key and request id of ChatCompletionsClient are those of the package it is named after."""
    from azure.ai.inference import ChatCompletionsClient
    from azure.core.credentials import AzureKeyCredential
    from azure.core.pipeline.transport import HttpTransport

    class Nowhere(HttpTransport):
        def send(self, request: Any, **_: Any) -> Any:
            raise _Sent(request)

        def open(self) -> None: ...
        def close(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    vendor = next(each for each in VENDORS if each.sdk == "ChatCompletionsClient")
    endpoint = Endpoint(
        sdk=vendor.sdk, base_url="http://127.0.0.1:9/models", deployment="m", api_version=vendor.version, key=KEY
    )
    provider = Registry().create(vendor.sdk)
    assert isinstance(provider, HttpProvider)
    ours = provider.rehearse(asked(endpoint))
    client = ChatCompletionsClient(
        endpoint=endpoint.base_url,
        credential=AzureKeyCredential(KEY),
        api_version=vendor.version,
        transport=Nowhere(),
    )

    with pytest.raises(_Sent) as sent:
        client.complete(
            model="m",
            messages=[
                {"role": "system", "content": "Answer as JSON."},
                {"role": "user", "content": '{"text": "hello"}'},
            ],
            temperature=0.5,
            max_tokens=50,
        )

    theirs = sent.value.args[0]
    assert theirs.url == str(ours.url)
    assert orjson.loads(theirs.body) == orjson.loads(ours.body)
    for name in ("api-key", "Authorization"):
        assert theirs.headers[name] == ours.headers[name.lower()]
    assert provider.attempt_header in theirs.headers


ENVIRONMENT = MappingProxyType(
    {
        "OPENAI_BASE_URL": "http://canary.example.com/v1",
        "OPENAI_API_KEY": "canary",
        "OPENAI_ORG_ID": "canary",
        "OPENAI_PROJECT_ID": "canary",
        "OPENAI_CUSTOM_HEADERS": "X-Canary: canary",
        "AZURE_OPENAI_API_KEY": "canary",
        "AZURE_OPENAI_AD_TOKEN": "canary",
        "AZURE_OPENAI_ENDPOINT": "http://canary.example.com",
        "ANTHROPIC_BASE_URL": "http://canary.example.com",
        "ANTHROPIC_API_KEY": "canary",
        "ANTHROPIC_AUTH_TOKEN": "canary",
        "ANTHROPIC_CUSTOM_HEADERS": "X-Canary: canary",
        "GOOGLE_GEMINI_BASE_URL": "http://canary.example.com",
        "GOOGLE_API_KEY": "canary",
    }
)
"""What SDKs look for in the environment."""


@pytest.mark.parametrize("base_url", ["", "https://elsewhere.example.com"])
def test_the_environment_is_not_sent(vendor: Vendor, base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's own fields decide where a call goes and with which key: a vendor's variables in the environment, which
    SDKs read, neither redirect it nor reach the endpoint."""
    if vendor.sdk in ("AzureOpenAI", "ChatCompletionsClient"):
        base_url = base_url or "https://resource.example.com"
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    endpoint = Endpoint(sdk=vendor.sdk, base_url=base_url, deployment="m", api_version=vendor.version, key=KEY)
    provider = Registry().create(vendor.sdk)
    assert isinstance(provider, HttpProvider)

    rehearsal = provider.rehearse(asked(endpoint))

    assert "canary" not in f"{rehearsal.url} {rehearsal.headers}"
    assert any(KEY in value for value in rehearsal.headers.values())


def test_a_schema_that_anthropic_takes(fake: FakeProvider) -> None:
    """Anthropic refuses open objects and bounds, so it gets the schema closed and without them."""
    bounded = {"type": "object", "properties": {"score": {"type": "integer", "minimum": 1}}, "required": ["score"]}
    wanted = {"type": "json_schema", "schema": bounded}

    result = answer(asked(ANTHROPIC.endpoint(fake), response_format=wanted))

    assert result.text == PLAIN_ANSWER
    (call,) = fake.seen.calls
    sent = {"type": "object", "properties": {"score": {"type": "integer"}}, "required": ["score"]}
    schema = call.body["output_config"]["format"]["schema"]
    assert schema == {**sent, "additionalProperties": False}


def test_a_schema_that_anthropic_cannot_take(fake: FakeProvider) -> None:
    """A map with free keys has no closed form: it is not sent, rather than sent as its opposite."""
    free = {"type": "json_schema", "schema": {"type": "object", "additionalProperties": {"type": "number"}}}

    answer(asked(ANTHROPIC.endpoint(fake), response_format=free))

    assert "output_config" not in fake.seen.calls[0].body


def test_a_refused_schema_is_left_out_from_then_on(fake: FakeProvider) -> None:
    """A model without structured output fails once for a schema, as transient, and then answers."""
    request = asked(ANTHROPIC.endpoint(fake, "old"), response_format={"type": "json_schema", "schema": SCHEMA})

    first, second = complete(request, request)

    assert type(first) is TransientProviderError
    assert "schema" in str(first)
    assert isinstance(second, Completion)


Send = Callable[..., dict[str, Any]]


@pytest.fixture
def body_for() -> Send:
    """The body for a deployment at a base URL, by OpenAI's rules."""

    def make(base_url: str, deployment: str, sdk: str = "OpenAI", version: str = "2024-10-21", **fields: Any) -> Any:
        endpoint = Endpoint(sdk=sdk, base_url=base_url, deployment=deployment, api_version=version, key=KEY)
        provider = Registry().create(sdk)
        assert isinstance(provider, HttpProvider)
        return provider.body(asked(endpoint, **fields))

    return make


def test_token_limit_by_endpoint(body_for: Send) -> None:
    """OpenAI and recent Azure take max_completion_tokens, compatible servers max_tokens, reasoning models the newer."""
    assert body_for("https://api.openai.com/v1", "gpt-4o")["max_completion_tokens"] == 50
    assert body_for("", "gpt-4o")["max_completion_tokens"] == 50
    assert body_for("http://localhost:8000/v1", "llama")["max_tokens"] == 50
    assert body_for("https://openrouter.ai/api/v1", "openai/o3-mini")["max_completion_tokens"] == 50
    assert body_for("https://r.example.com", "d", "AzureOpenAI")["max_completion_tokens"] == 50
    assert body_for("https://r.example.com", "d", "AzureOpenAI", "2024-02-01")["max_tokens"] == 50
    assert body_for("https://r.example.com", "d", "ChatCompletionsClient")["max_tokens"] == 50


@pytest.mark.parametrize("deployment", ["o1", "o3-mini", "gpt-5", "gpt-5.1-mini", "openai/gpt-5"])
def test_reasoning_models_get_no_temperature(body_for: Send, deployment: str) -> None:
    """They refuse one."""
    assert "temperature" not in body_for("https://api.openai.com/v1", deployment)


@pytest.mark.parametrize("deployment", ["gpt-4o", "gpt-5-chat-latest", "omni", "llama-o3"])
def test_other_models_get_it(body_for: Send, deployment: str) -> None:
    """Names that only look alike do not count as reasoning models."""
    assert body_for("https://api.openai.com/v1", deployment)["temperature"] == 0.5


def test_json_mode_where_it_works(body_for: Send) -> None:
    """JSON mode is asked for of vendors known to have it, if the prompts speak of JSON, which OpenAI insists on."""
    assert body_for("https://api.openai.com/v1", "gpt-4o")["response_format"] == {"type": "json_object"}
    silent = {"system": "x", "user": "y"}
    assert "response_format" not in body_for("https://api.openai.com/v1", "gpt-4o", **silent)
    assert "response_format" in body_for("https://api.openai.com/v1", "gpt-4o", **silent, turns=TURNS)
    assert "response_format" not in body_for("http://localhost:8000/v1", "llama")
    assert "response_format" not in body_for("https://api.openai.com/v1", "gpt-4o", response_format="text")


def test_json_schema_where_it_works(body_for: Send) -> None:
    """A schema goes to every endpoint but those known to refuse it."""
    wanted = {"type": "json_schema", "schema": SCHEMA}
    sent = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    assert body_for("http://localhost:8000/v1", "llama", response_format=wanted)["response_format"] == sent
    assert "response_format" not in body_for("https://api.deepseek.com", "d", response_format=wanted)


def test_a_refused_parameter_is_left_out_from_then_on(fake: FakeProvider) -> None:
    """A model that refuses a parameter fails once for each, as transient, and then answers."""
    request = asked(VENDORS[0].endpoint(fake, "thinker"))

    first, second, third = complete(request, request, request)

    assert type(first) is TransientProviderError
    assert "temperature" in str(first)
    assert type(second) is TransientProviderError
    assert isinstance(third, Completion)
    assert fake.seen.calls[-1].body["max_completion_tokens"] == 50


@pytest.mark.parametrize(
    ("sdk", "endpoint"),
    [
        ("OpenAI", "{url}/v1/chat/completions"),
        ("AzureOpenAI", "{url}/openai/deployments/other/chat/completions?api-version=2023-01-01"),
        ("ChatCompletionsClient", "{url}/models/chat/completions?api-version=2024-05-01-preview"),
        ("Anthropic", "{url}/v1/messages"),
        ("Gemini", "{url}/v1beta"),
    ],
)
def test_whole_urls_are_understood(fake: FakeProvider, sdk: str, endpoint: str) -> None:
    """An endpoint that was copied with the call's path behind it works like the base URL."""
    vendor = next(each for each in VENDORS if each.sdk == sdk)

    result = answer(asked(replace(vendor.endpoint(fake), base_url=endpoint.format(url=fake.url))))

    assert result.text == PLAIN_ANSWER


def test_the_test_provider() -> None:
    """It answers a small JSON object at once, without key or network, tokens 1/1."""
    result = answer(asked(Endpoint(sdk="test", base_url="http://nowhere", deployment="m")))

    assert isinstance(orjson.loads(result.text), dict)
    assert result.usage == Usage(input_tokens=1, output_tokens=1)
