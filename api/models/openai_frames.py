"""A stream as OpenAI's API puts it on the wire: chunks of chat completions as server-sent events."""

from collections.abc import Sequence
from typing import Any

import orjson

from api.core.problems import openai_error
from api.middleware.errors import openai_answer
from engine.errors import MetasyncError
from engine.jobs.job import Call
from engine.llm import JsonObject, Piece
from engine.records.streams import Stream


class Chunks:
    """All chunks have one id. With `usage`, one more comes at last, without choices, that tells the tokens."""

    media_type = "text/event-stream; charset=utf-8"
    keep_alive = b": ping\n\n"

    def __init__(self, stream: Stream, *, usage: bool) -> None:
        self._head: JsonObject = {
            "id": f"chatcmpl-{stream.id}",
            "object": "chat.completion.chunk",
            "created": int(stream.metadata.created_at.timestamp()),
            "model": stream.model,
        }
        self._usage: JsonObject = {"usage": None} if usage else {}

    def piece(self, piece: Piece) -> bytes:
        chunk = piece if isinstance(piece, dict) else {"choices": [_said(piece)]}
        return _event({**self._head, **chunk, **self._usage})

    def end(self, stream: Stream) -> Sequence[bytes]:
        done = b"data: [DONE]\n\n"
        answered = [call for call in stream.calls if call.outcome == "ok"]
        if not self._usage or not answered:
            return [done]
        return [_event({**self._head, "choices": [], "usage": usage_to_wire(answered[-1])}), done]

    def error(self, error: MetasyncError) -> bytes | None:
        status, text, told = openai_answer(error)
        return _event({"error": openai_error(status, text, told)})


def usage_to_wire(call: Call) -> JsonObject:
    given, answered = call.input_tokens or 0, call.output_tokens or 0
    return {
        "prompt_tokens": given,
        "completion_tokens": answered,
        "total_tokens": given + answered,
        "prompt_tokens_details": {"cached_tokens": call.cached_input_tokens or 0},
        "completion_tokens_details": {"reasoning_tokens": call.reasoning_tokens or 0},
    }


def _said(text: str) -> JsonObject:
    return {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"
