"""The provider `test`: answers at once, costs nothing, needs no key and no network."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar

from engine.llm import Completion, CompletionRequest, Usage

if TYPE_CHECKING:
    from llm_workers.transport import Transport

ANSWER = '{"status": "ok", "message": "This is the test provider\'s fixed answer."}'
_SENTENCE = "This is the test provider's fixed stream, which comes one character at a time. "
STREAMED = (_SENTENCE * 6)[:445]
"""As long as the contract has it."""

_PAUSE_SECONDS = 0.01


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
