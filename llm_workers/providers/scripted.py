"""The provider `test`: answers at once, costs nothing, needs no key and no network."""

from typing import TYPE_CHECKING, ClassVar

from engine.llm import Completion, CompletionRequest, Usage

if TYPE_CHECKING:
    from llm_workers.transport import Transport

ANSWER = '{"status": "ok", "message": "This is the test provider\'s fixed answer."}'


class ScriptedProvider:
    needs_key: ClassVar[bool] = False

    def __init__(self, transport: "Transport") -> None:
        """It has no use for the transport."""

    async def complete(self, request: CompletionRequest) -> Completion:
        return Completion(
            text=ANSWER,
            usage=Usage(input_tokens=1, output_tokens=1),
            finish_reason="stop",
            request_id=request.attempt_id,
        )

    async def aclose(self) -> None:
        """Holds nothing."""
