"""A stream as Anthropic's API puts it on the wire: its events as server-sent events with names."""

from collections.abc import Sequence
from typing import Any

import orjson

from api.core.problems import anthropic_error
from api.middleware.errors import openai_answer
from engine.errors import MetasyncError
from engine.llm import JsonObject
from engine.records.streams import Stream


class Events:
    """Handed on as they come, but for the name of the model, which is the one that was asked for."""

    media_type = "text/event-stream; charset=utf-8"
    keep_alive = b'event: ping\ndata: {"type":"ping"}\n\n'

    def __init__(self, stream: Stream) -> None:
        self._model = stream.model

    def piece(self, piece: Any) -> bytes:
        if piece["type"] == "message_start":
            piece = {**piece, "message": {**piece["message"], "model": self._model}}
        return _event(piece)

    def end(self, _stream: Stream) -> Sequence[bytes]:
        return [_event({"type": "message_stop"})]

    def error(self, error: MetasyncError) -> bytes | None:
        status, text, told = openai_answer(error)
        return _event(anthropic_error(status, text, told))


def _event(content: JsonObject) -> bytes:
    return b"event: " + str(content["type"]).encode() + b"\ndata: " + orjson.dumps(content) + b"\n\n"
