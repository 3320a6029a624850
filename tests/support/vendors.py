"""The vendors whose providers are tested, and calls to the fake provider by each of them."""

import asyncio
import traceback
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from engine.llm import (
    AnswerCutOff,
    AnswerRefused,
    Completion,
    CompletionRequest,
    ContentFiltered,
    Endpoint,
    Level,
    ProviderError,
    Timeouts,
    UnusableAnswer,
)
from llm_workers.providers.http import HttpProvider
from llm_workers.providers.registry import ProviderSet, Registry
from tests.support.fake_provider import FakeProvider

KEY = "sk-very/secret+key=0123456789"
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}


LEVELS = (
    Level(kind="requests", limit=60, remaining=59, resets_in=1.0),
    Level(kind="tokens", limit=150_000, remaining=149_984, resets_in=360.0),
)
_OPENAI_LIMITS = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-limit-tokens": "150000",
    "x-ratelimit-remaining-requests": "59",
    "x-ratelimit-remaining-tokens": "149984",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-reset-tokens": "6m0s",
}
_ANTHROPIC_LIMITS = {
    "Date": "Sun, 06 Nov 1994 08:49:37 GMT",
    "anthropic-ratelimit-requests-limit": "60",
    "anthropic-ratelimit-requests-remaining": "59",
    "anthropic-ratelimit-requests-reset": "1994-11-06T08:49:38Z",
    "anthropic-ratelimit-tokens-limit": "200000",
    "anthropic-ratelimit-tokens-remaining": "200000",
    "anthropic-ratelimit-tokens-reset": "1994-11-06T08:49:37Z",
    "anthropic-ratelimit-input-tokens-limit": "150000",
    "anthropic-ratelimit-input-tokens-remaining": "149984",
    "anthropic-ratelimit-input-tokens-reset": "1994-11-06T08:55:37Z",
}


@dataclass(frozen=True)
class Vendor:
    """`limit_headers` are those that mean LEVELS, None where the vendor tells of no limits.

    `refused`, `filtered`: the errors for a model and a filter that say no, which not every vendor tells apart."""

    sdk: str
    path: str
    version: str = "x"
    takes_attempt_id: bool = True
    refused: type[UnusableAnswer] = AnswerRefused
    filtered: type[UnusableAnswer] = ContentFiltered
    limit_headers: Mapping[str, str] | None = field(default_factory=lambda: _OPENAI_LIMITS)

    def unusable(self, fault: str) -> type[UnusableAnswer]:
        """The error that a length, refusal or content_filter is."""
        return {"length": AnswerCutOff, "refusal": self.refused, "content_filter": self.filtered}[fault]

    def endpoint(self, fake: FakeProvider, deployment: str = "m") -> Endpoint:
        base = f"{fake.url}{self.path}"
        return Endpoint(sdk=self.sdk, base_url=base, deployment=deployment, api_version=self.version, key=KEY)


VENDORS = [
    Vendor("OpenAI", "/v1"),
    Vendor("AzureOpenAI", "", "2024-10-21"),
    Vendor("ChatCompletionsClient", "/models", "2024-05-01-preview"),
    Vendor("Anthropic", "", takes_attempt_id=False, filtered=AnswerRefused, limit_headers=_ANTHROPIC_LIMITS),
    Vendor("Gemini", "", "v1beta", takes_attempt_id=False, refused=ContentFiltered, limit_headers=None),
    Vendor("Mistral", "/mistral/v1", refused=ContentFiltered),
    Vendor("DeepSeek", "/deepseek"),
    Vendor("xAI", "/xai/v1"),
    Vendor("LMStudio", "/lmstudio/v1"),
]
TINY = Timeouts(connect=0.25, read=0.25, total=0.6)


def asked(endpoint: Endpoint, **fields: Any) -> CompletionRequest:
    values: dict[str, Any] = {"system": "Answer as JSON.", "user": '{"text": "hello"}', "temperature": 0.5}
    return CompletionRequest(endpoint=endpoint, **{**values, "max_tokens": 50, "attempt_id": "attempt-1", **fields})


def chatted(endpoint: Endpoint, **body: Any) -> CompletionRequest:
    """A chat of one system and one user message, with `body` besides."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}]
    chat = {"model": "named by the client", "messages": messages, **body}
    return asked(endpoint, system="", user="", temperature=None, max_tokens=None, chat=chat)


def complete(*requests: CompletionRequest) -> list[Completion | BaseException]:
    """The answers to the requests, one after the other, from one event loop's providers."""

    async def run() -> list[Completion | BaseException]:
        providers = ProviderSet(Registry())
        try:
            provider = await providers.get(requests[0].endpoint.sdk)
            return [(await asyncio.gather(provider.complete(each), return_exceptions=True))[0] for each in requests]
        finally:
            await providers.aclose()

    return asyncio.run(run())


def embedded(endpoint: Endpoint, **body: Any) -> Completion | BaseException:
    """What came of a request for vectors."""

    async def run() -> Completion | BaseException:
        providers = ProviderSet(Registry())
        provider = await providers.get(endpoint.sdk)
        assert isinstance(provider, HttpProvider)
        request = asked(endpoint, embeds={"model": "named by the client", **body})
        (result,) = await asyncio.gather(provider.embed(request), return_exceptions=True)
        await providers.aclose()
        return result

    return asyncio.run(run())


def answer(request: CompletionRequest) -> Completion:
    (result,) = complete(request)
    assert isinstance(result, Completion), result
    return result


def error(request: CompletionRequest) -> ProviderError:
    (result,) = complete(request)
    assert isinstance(result, ProviderError), repr(result)
    return result


@dataclass
class Streamed:
    """What came of a stream."""

    pieces: list[Any] = field(default_factory=list)
    completion: Completion | None = None
    error: ProviderError | None = None


async def _read(provider: HttpProvider, request: CompletionRequest) -> Streamed:
    result = Streamed()
    try:
        async with aclosing(provider.stream(request)) as stream:
            async for item in stream:
                assert result.completion is None
                if isinstance(item, Completion):
                    result.completion = item
                else:
                    result.pieces.append(item)
    except ProviderError as error:
        result.error = error
    return result


def streamed(request: CompletionRequest) -> Streamed:
    """All that came of one streamed call."""

    async def run() -> Streamed:
        providers = ProviderSet(Registry())
        provider = await providers.get(request.endpoint.sdk)
        assert isinstance(provider, HttpProvider)
        result = await _read(provider, request)
        await providers.aclose()
        return result

    return asyncio.run(run())


def wrong(vendor: Vendor, fake: FakeProvider, fault: str, **fields: Any) -> ProviderError:
    return error(asked(vendor.endpoint(fake, f"m!{fault}"), **fields))


def shown_by(problem: BaseException) -> str:
    """All that a log could show of an error: its chain with every repr, status, raw text."""
    shown = ["".join(traceback.format_exception(problem))]
    link: BaseException | None = problem
    while link is not None:
        shown += [repr(link), str(link), repr(vars(link)), repr(link.args)]
        link = link.__cause__ or link.__context__
    return "\n".join(shown)
