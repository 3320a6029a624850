"""Each vendor's own asynchronous client as it comes, without retries: what a provider of ours is compared with.

Each is a context that lends one call. They are imported one at a time, since a bare loop has only one of them.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

KEY = "sk-of-no-worth"
SYSTEM, USER = "Answer as JSON.", '{"text":"a benchmark job, as long as a short sentence is"}'
MOST_TOKENS = 1000
Call = Callable[[int], Awaitable[object]]
_MESSAGES: Any = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]


@asynccontextmanager
async def openai(url: str) -> AsyncIterator[Call]:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0) as client:
        yield _chat(client)


@asynccontextmanager
async def azure_openai(url: str) -> AsyncIterator[Call]:
    from openai import AsyncAzureOpenAI

    version = "2024-10-21"
    async with AsyncAzureOpenAI(api_key=KEY, azure_endpoint=url, api_version=version, max_retries=0) as client:
        yield _chat(client)


@asynccontextmanager
async def anthropic(url: str) -> AsyncIterator[Call]:
    from anthropic import AsyncAnthropic

    async with AsyncAnthropic(api_key=KEY, base_url=url, max_retries=0) as client:

        def call(number: int) -> Awaitable[object]:
            return client.messages.create(
                model="fake", max_tokens=MOST_TOKENS, system=SYSTEM, messages=[{"role": "user", "content": USER}]
            )

        yield call


@asynccontextmanager
async def gemini(url: str) -> AsyncIterator[Call]:
    from google import genai
    from google.genai import types

    options = types.HttpOptions(base_url=url, api_version="v1beta")
    config = types.GenerateContentConfig(
        system_instruction=SYSTEM,
        temperature=0.0,
        max_output_tokens=MOST_TOKENS,
        response_mime_type="application/json",
    )
    async with genai.Client(api_key=KEY, vertexai=False, http_options=options).aio as client:
        yield lambda number: client.models.generate_content(model="fake", contents=USER, config=config)


@asynccontextmanager
async def chat_completions(url: str) -> AsyncIterator[Call]:
    from azure.ai.inference.aio import ChatCompletionsClient
    from azure.core.credentials import AzureKeyCredential

    async with ChatCompletionsClient(url, AzureKeyCredential(KEY), retry_total=0) as client:

        def call(number: int) -> Awaitable[object]:
            return client.complete(messages=_MESSAGES, model="fake", temperature=0.0, max_tokens=MOST_TOKENS)

        yield call


SDKS: Mapping[str, Callable[[str], AbstractAsyncContextManager[Call]]] = {
    "OpenAI": openai,
    "AzureOpenAI": azure_openai,
    "Anthropic": anthropic,
    "Gemini": gemini,
    "ChatCompletionsClient": chat_completions,
    "Mistral": openai,
}
"""By our name of the sdk. Vendors that speak OpenAI's chat completions are called with OpenAI's client."""


def _chat(client: Any) -> Call:
    def call(number: int) -> Awaitable[object]:
        made: Awaitable[object] = client.chat.completions.create(
            model="fake", messages=_MESSAGES, temperature=0.0, max_tokens=MOST_TOKENS
        )
        return made

    return call
