"""Answers that come piece by piece: one suite for all providers, against servers that stream as their vendors do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import orjson
import pytest

from engine.llm import (
    Completion,
    Endpoint,
    ProviderError,
    ProviderRefusedKey,
    ProviderTimeout,
    RateLimited,
    TransientProviderError,
    Usage,
)
from llm_workers.providers.events import event_data
from llm_workers.providers.http import HttpProvider
from llm_workers.providers.registry import ProviderSet, Registry
from llm_workers.providers.scripted import STREAMED, ScriptedProvider
from llm_workers.transport import Transport
from tests.support.fake_provider import FakeProvider
from tests.support.fake_provider.server import PLAIN_ANSWER
from tests.support.vendors import KEY, TINY, VENDORS, Vendor, asked, shown_by, streamed


def test_pieces_and_their_sum(vendor: Vendor, fake: FakeProvider) -> None:
    """The text comes in several pieces, then all of it with usage, reason and request id, by one streamed call."""
    result = streamed(asked(vendor.endpoint(fake)))

    assert result.error is None
    assert len(result.pieces) > 2
    assert all(result.pieces)
    assert result.completion is not None
    assert result.completion.text == "".join(result.pieces) == PLAIN_ANSWER
    assert result.completion.finish_reason
    assert result.completion.request_id == "req_fake"
    (call,) = fake.seen.calls
    assert (call.system, call.user) == ("Answer as JSON.", '{"text": "hello"}')
    assert call.attempt_id == ("attempt-1" if vendor.takes_attempt_id else "")
    assert result.completion.usage == Usage(input_tokens=11, output_tokens=7)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("status,code=503", TransientProviderError),
        ("rate_limit,seconds=7", RateLimited),
        ("key", ProviderRefusedKey),
        ("reset", TransientProviderError),
    ],
)
def test_errors_before_the_first_piece(
    vendor: Vendor, fake: FakeProvider, fault: str, kind: type[ProviderError]
) -> None:
    """They are the ones of a call that is not streamed."""
    result = streamed(asked(vendor.endpoint(fake, f"m!{fault}")))

    assert type(result.error) is kind
    assert result.pieces == []
    assert KEY not in shown_by(result.error)
    assert fake.seen.total == 1


@pytest.mark.parametrize("fault", ["cut", "broken_off", "truncated"])
def test_errors_in_the_middle(vendor: Vendor, fake: FakeProvider, fault: str) -> None:
    """A connection that breaks, an error that the vendor tells of, an end without an end: transient, the text kept."""
    result = streamed(asked(vendor.endpoint(fake, f"m!{fault}")))

    assert type(result.error) is TransientProviderError
    assert result.completion is None
    partial = "".join(result.pieces)
    assert PLAIN_ANSWER.startswith(partial)
    assert result.error.raw == partial or not partial
    if vendor.sdk in ("Anthropic", "Gemini"):  # which tell the usage as they go
        assert result.error.usage is not None
        assert result.error.usage.input_tokens == 11


@pytest.mark.parametrize("fault", ["length", "content_filter", "refusal"])
def test_a_useless_answer(vendor: Vendor, fake: FakeProvider, fault: str) -> None:
    """An answer that ends for a wrong reason is an error in the end, as without streaming, with its text and usage."""
    result = streamed(asked(vendor.endpoint(fake, f"m!{fault}")))

    assert result.error is not None
    assert type(result.error) is vendor.unusable(fault)
    assert result.error.raw
    assert result.error.usage == Usage(input_tokens=11, output_tokens=7)
    assert result.error.request_id == "req_fake"


@pytest.mark.parametrize(("fault", "which"), [("hang", "first-byte timeout"), ("drip,seconds=1", "idle timeout")])
def test_timeouts(vendor: Vendor, fake: FakeProvider, fault: str, which: str) -> None:
    """A stream that never begins and one that stalls end in an error that says which it was."""
    result = streamed(asked(vendor.endpoint(fake, f"m!{fault}"), timeouts=TINY))

    assert type(result.error) is ProviderTimeout
    assert which in str(result.error)
    fake.seen.wait_until(lambda seen: seen.hung_up == 1)


def test_whoever_stops_reading_drops_the_call(vendor: Vendor, fake: FakeProvider) -> None:
    """A closed stream closes its connection: the vendor sees a caller that hung up."""
    request = asked(vendor.endpoint(fake, "m!drip,seconds=0.05"))

    async def run() -> None:
        providers = ProviderSet(Registry())
        provider = await providers.get(vendor.sdk)
        assert isinstance(provider, HttpProvider)
        async with aclosing(provider.stream(request)) as stream:
            assert PLAIN_ANSWER.startswith(str(await anext(stream)))
        await asyncio.to_thread(fake.seen.wait_until, lambda seen: seen.hung_up == 1)
        await providers.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("vendor", [each for each in VENDORS if each.sdk != "Gemini"], ids=lambda vendor: vendor.sdk)
def test_the_sdk_would_send_the_same(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body of a streamed call is the one that the vendor's own client makes of it."""
    base = "https://resource.example.com"
    endpoint = Endpoint(sdk=vendor.sdk, base_url=base, deployment="m", api_version=vendor.version, key=KEY)
    request = asked(endpoint)
    provider = Registry().create(vendor.sdk)
    assert isinstance(provider, HttpProvider)
    plain, wanted = provider.rehearse(request), provider.stream_body(request)
    monkeypatch.setattr(provider, "body", lambda _: wanted)

    rehearsal = provider.rehearse(request)

    assert orjson.loads(rehearsal.body) == wanted
    assert wanted["stream"] is True
    assert rehearsal.url == provider.stream_url(plain.url)


def test_googles_client_would_stream_from_the_same_url() -> None:
    """Gemini streams at a URL of its own, by a method of its own."""
    from google import genai
    from google.genai import types

    from llm_workers.providers.rehearsal import rehearse

    endpoint = Endpoint(sdk="Gemini", base_url="", deployment="m", api_version="v1beta", key=KEY)
    provider = Registry().create("Gemini")
    assert isinstance(provider, HttpProvider)

    def call(client):  # type: ignore[no-untyped-def]
        options = types.HttpOptions(api_version="v1beta", httpx_client=client)
        sdk = genai.Client(api_key=KEY, vertexai=False, http_options=options)
        return list(sdk.models.generate_content_stream(model="m", contents="hi"))

    assert rehearse(call).url == provider.stream_url(provider.rehearse(asked(endpoint)).url)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_in_pieces_of_any_size(size: int) -> None:
    """Events are found however the network cuts them; comments, names, the end mark and half an event are none."""
    text = b': ping\n\ndata: {"a": 1}\n\nevent: x\r\ndata: {"b":\r\ndata: 2}\r\n\r\ndata:[1]\n\n'
    text += b'data: [DONE]\n\ndata: {"cut'

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(text), size):
            yield text[start : start + size]

    async def found() -> list[bytes]:
        return [data async for data in event_data(pieces())]

    assert asyncio.run(found()) == [b'{"a": 1}', b'{"b":\n2}', b"[1]"]


def test_the_test_provider() -> None:
    """Its stream is 445 characters, one per piece every 10 ms, tokens 10/50."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def run() -> list[str | Completion]:
        provider = ScriptedProvider(Transport(), pause)
        return [item async for item in provider.stream(asked(Endpoint(sdk="test", base_url="", deployment="m")))]

    *pieces, completion = asyncio.run(run())

    assert (len(pieces), len(STREAMED)) == (445, 445)
    assert pauses == [0.01] * 445
    assert isinstance(completion, Completion)
    assert completion.text == "".join(map(str, pieces))
    assert completion.usage == Usage(input_tokens=10, output_tokens=50)
