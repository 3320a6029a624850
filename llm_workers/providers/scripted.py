"""The provider `test`: answers at once, costs nothing, needs no key and no network."""

import asyncio
import math
import random
from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable
from struct import pack
from typing import TYPE_CHECKING, Any, ClassVar

from engine.llm import Completion, CompletionRequest, Usage
from llm_workers.chats import inputs_of
from llm_workers.providers.chat_answers import embedding_body
from llm_workers.providers.chat_parts import whole_number

if TYPE_CHECKING:
    from llm_workers.transport import Transport

ANSWER = '{"status": "ok", "message": "This is the test provider\'s fixed answer."}'
_SENTENCE = "This is the test provider's fixed stream, which comes one character at a time. "
STREAMED = (_SENTENCE * 6)[:445]
"""As long as the contract has it."""

_PAUSE_SECONDS = 0.01
_DIMENSIONS = 8
_MOST_DIMENSIONS = 4096


class ScriptedProvider:
    needs_key: ClassVar[bool] = False
    takes_chat: ClassVar[bool] = True

    def __init__(self, _transport: "Transport", pause: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        self._pause = pause

    async def complete(self, request: CompletionRequest) -> Completion:
        return Completion(
            text=ANSWER,
            usage=Usage(input_tokens=1, output_tokens=1),
            finish_reason="stop",
            request_id=request.attempt_id,
        )

    async def embed(self, request: CompletionRequest) -> Completion:
        """Equal texts have equal vectors, of length 1, which mean nothing."""
        given = request.embeds or {}
        inputs = inputs_of(given)
        size = min(whole_number(given, "dimensions", 1) or _DIMENSIONS, _MOST_DIMENSIONS)
        vectors: list[Any] = [_vector(repr(each), size) for each in inputs]
        if given.get("encoding_format") == "base64":
            vectors = [b64encode(pack(f"<{size}f", *each)).decode() for each in vectors]
        usage = Usage(input_tokens=len(inputs))
        body = embedding_body(vectors, request.endpoint.deployment, usage)
        return Completion(text="", usage=usage, request_id=request.attempt_id, body=body)

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[str | Completion, None]:
        for character in STREAMED:
            await self._pause(_PAUSE_SECONDS)
            yield character
        yield Completion(
            text=STREAMED,
            usage=Usage(input_tokens=10, output_tokens=50),
            finish_reason="stop",
            request_id=request.attempt_id,
        )

    async def aclose(self) -> None:
        """Holds nothing."""


def _vector(text: str, size: int) -> list[float]:
    """Drawn from the text alone."""
    rng = random.Random(text)
    drawn = [rng.gauss(0.0, 1.0) for _ in range(size)]
    length = math.hypot(*drawn)
    return [each / length for each in drawn]
