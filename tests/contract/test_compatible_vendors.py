"""Vendors that speak OpenAI's format, each in its own way: the table's rows, against servers as strict as theirs."""

import asyncio
from typing import Any

import orjson
import pytest

from engine.llm import Completion, Endpoint, TransientProviderError, UnusableAnswer, Usage
from llm_workers.providers.compatible import COMPATIBLE, Compatible
from llm_workers.providers.faults import unwanted_parameter
from llm_workers.providers.http import HttpProvider
from llm_workers.providers.openai import OpenAiProvider
from llm_workers.providers.registry import ProviderSet, Registry
from tests.support.fake_provider import FakeProvider
from tests.support.fake_provider.server import PLAIN_ANSWER
from tests.support.vendors import KEY, SCHEMA, VENDORS, Vendor, answer, asked, complete

SCHEMA_WANTED = {"type": "json_schema", "schema": SCHEMA}
WORDS = {"temperature", "max_tokens", "response_format"}


def vendor(sdk: str) -> Vendor:
    return next(each for each in VENDORS if each.sdk == sdk)


def provider_of(sdk: str) -> OpenAiProvider:
    made = Registry().create(sdk)
    assert isinstance(made, OpenAiProvider)
    return made


@pytest.mark.parametrize("row", COMPATIBLE.values(), ids=lambda row: row.sdk)
def test_the_vendors_own_address(row: Compatible) -> None:
    """A model that leaves its endpoint open calls the vendor's own, over TLS unless the server is on this machine."""
    endpoint = Endpoint(sdk=row.sdk, base_url="", deployment="m", key=KEY)

    rehearsal = provider_of(row.sdk).rehearse(asked(endpoint))

    assert str(rehearsal.url) == f"{row.base_url}/chat/completions"
    assert rehearsal.url.scheme == ("https" if row.needs_key else "http")
    assert rehearsal.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("sdk", ["Mistral", "DeepSeek", "xAI", "LMStudio"])
@pytest.mark.parametrize("wanted", ["json", "text", SCHEMA_WANTED], ids=["json", "text", "schema"])
def test_nothing_is_sent_that_it_refuses(fake: FakeProvider, sdk: str, wanted: Any) -> None:
    """The first call of a new model goes through: its row leaves out what the vendor is known to refuse."""
    result = answer(asked(vendor(sdk).endpoint(fake), response_format=wanted))

    assert result.text == PLAIN_ANSWER
    assert fake.seen.total == 1


def test_known_by_host() -> None:
    """A model of sdk OpenAI at a known vendor's address is treated like one that names the vendor."""
    for row in COMPATIBLE.values():
        if row.needs_key:
            request = asked(Endpoint(sdk="OpenAI", base_url=f"{row.base_url}/", deployment="m", key=KEY))
            assert provider_of("OpenAI").body(request) == provider_of(row.sdk).body(request)


def test_a_server_without_a_key(fake: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local server is called without credentials where there are none, and never with a key of OpenAI's."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    request = asked(Endpoint(sdk="LMStudio", base_url=f"{fake.url}/lmstudio/v1", deployment="m"))

    assert "authorization" not in provider_of("LMStudio").rehearse(request).headers
    assert answer(request).text == PLAIN_ANSWER


def test_a_row_that_has_become_wrong(fake: FakeProvider) -> None:
    """A vendor that refuses the token limit's name gets the other one from the second call on."""
    request = asked(Endpoint(sdk="Groq", base_url=f"{fake.url}/mistral/v1", deployment="m", key=KEY))

    first, second = complete(request, request)

    assert type(first) is TransientProviderError
    assert "max_completion_tokens" in str(first)
    assert isinstance(second, Completion)
    assert fake.seen.calls[-1].body["max_tokens"] == 50


@pytest.mark.parametrize("sdk", ["OpenAI", "Anthropic"])
def test_many_find_out_at_once(fake: FakeProvider, sdk: str) -> None:
    """Calls that are in flight when a model refuses a parameter are all transient: none pays for another's lesson."""
    deployment = {"OpenAI": "thinker", "Anthropic": "old"}[sdk]
    request = asked(vendor(sdk).endpoint(fake, deployment), response_format=SCHEMA_WANTED)

    async def run() -> list[Completion | BaseException]:
        providers = ProviderSet(Registry())
        provider = await providers.get(sdk)
        fake.hold()
        calls = [asyncio.ensure_future(provider.complete(request)) for _ in range(8)]
        await asyncio.to_thread(fake.seen.wait_until, lambda seen: seen.total == 8)
        fake.release()
        results = await asyncio.gather(*calls, return_exceptions=True)
        await providers.aclose()
        return results

    assert {type(result) for result in asyncio.run(run())} == {TransientProviderError}


@pytest.mark.parametrize(
    ("status", "document", "refused"),
    [
        (400, {"error": {"code": "unsupported_value", "param": "temperature", "message": "no"}}, "temperature"),
        (400, {"error": {"message": "This model does not support `response_format`"}}, "response_format"),
        (400, {"error": {"message": "This model doesn't support response format `json_schema`"}}, "response_format"),
        (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "max_tokens"]}]}, "max_tokens"),
        (400, {"error": "unknown field temperature"}, "temperature"),
        (400, {"error": {"message": "Invalid schema for response_format 'answer': 'oneOf' is unsupported"}}, None),
        (400, {"error": {"message": "max_tokens is too large: 50000. This model supports at most 4096"}}, None),
        (400, {"error": {"message": "unknown model"}}, None),
        (400, {"error": {"code": "unsupported_value", "param": "messages", "message": "no"}}, None),
        (404, {"error": {"code": "unsupported_value", "param": "temperature", "message": "no"}}, None),
        (400, None, None),
    ],
)
def test_what_is_a_refused_parameter(status: int, document: Any, refused: str | None) -> None:
    """A refusal names a parameter that was sent and says that it is not known; a complaint about a value is none."""
    assert unwanted_parameter(status, orjson.dumps(document), WORDS) == refused


@pytest.mark.parametrize("reason", ["error", "insufficient_system_resource"])
def test_an_answer_that_the_vendor_broke_off(reason: str) -> None:
    """Gateways end an answer with a reason of their own when their vendor fails: transient, and paid for."""
    document = {
        "choices": [{"message": {"content": '{"a'}, "finish_reason": reason}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }
    request = asked(Endpoint(sdk="OpenRouter", base_url="", deployment="m", key=KEY))

    with pytest.raises(TransientProviderError) as failed:
        provider_of("OpenRouter").read(document, request)

    assert failed.value.usage == Usage(input_tokens=5, output_tokens=2)
    assert failed.value.raw == '{"a'
    assert not isinstance(failed.value, UnusableAnswer)


def test_every_row_is_a_provider() -> None:
    """Each name makes a provider that carries it in its errors."""
    for sdk in COMPATIBLE:
        made = Registry().create(sdk)
        assert isinstance(made, HttpProvider)
        assert made.sdk == sdk
