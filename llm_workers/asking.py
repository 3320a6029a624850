"""One call of a provider, whatever it can do: chats of those that know texts only, streams of those that do not stream.

`now` is when an answer is said to be created that the vendor gives no time of.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import cast

from engine.llm import (
    Completion,
    CompletionRequest,
    EmbeddingProvider,
    PermanentProviderError,
    Piece,
    Provider,
    UnsupportedEndpoint,
)
from llm_workers.chats import refuse_beyond_text
from llm_workers.providers.chat_answers import ending, wrapped
from llm_workers.providers.chat_chunks import ChatFold, last_chunk, text_chunk


async def prepare(provider: Provider, request: CompletionRequest) -> None:
    """What comes before the call. Raises UnsupportedParameter where the provider cannot do what is asked."""
    if request.embeds is not None and not hasattr(provider, "embed"):
        raise UnsupportedEndpoint(f"{request.endpoint.sdk} has no embeddings")
    if request.messages is not None and not getattr(provider, "takes_messages", False):
        sdk = request.endpoint.sdk
        raise UnsupportedEndpoint(f"{sdk} has no Messages API; POST /v1/chat/completions takes every model")
    if request.chat is not None and not getattr(provider, "takes_chat", False):
        refuse_beyond_text(request.chat)
    own = getattr(provider, "prepare", None)
    if own is not None:
        await own(request)


async def answer(provider: Provider, request: CompletionRequest, now: datetime) -> Completion:
    """The whole answer; that to a chat or embedding has a body. Raises what `complete` raises."""
    if request.embeds is not None:
        return await cast(EmbeddingProvider, provider).embed(request)
    return _bodied(await provider.complete(request), request, now)


async def pieces(
    provider: Provider, request: CompletionRequest, now: datetime
) -> AsyncGenerator[Piece | Completion, None]:
    """The answer's pieces and last the completion, as a StreamingProvider gives them. To be closed as one of those."""
    fold = None if request.chat is None else ChatFold(lambda chunk: chunk, now)
    stream = getattr(provider, "stream", None)
    async with aclosing(_at_once(provider, request) if stream is None else stream(request)) as said:
        async for piece in said:
            if isinstance(piece, Completion):
                if fold is not None and piece.body is None:
                    yield fold.feed(last_chunk(ending(piece))) or {}
                yield _bodied(piece, request, now)
                return
            chunk = piece if fold is None or isinstance(piece, dict) else fold.feed(text_chunk(piece))
            if chunk is not None:
                yield chunk
    raise PermanentProviderError(f"{request.endpoint.sdk}: the stream ended without a completion")


async def _at_once(provider: Provider, request: CompletionRequest) -> AsyncGenerator[Piece | Completion, None]:
    """A plug-in that does not stream says all in one piece."""
    completion = await provider.complete(request)
    if completion.text and completion.body is None:
        yield completion.text
    yield completion


def _bodied(completion: Completion, request: CompletionRequest, now: datetime) -> Completion:
    if request.chat is None or completion.body is not None:
        return completion
    return replace(completion, body=wrapped(completion, request.endpoint.deployment, request.attempt_id, now))
