"""Streams that were answered before, said again: their whole answers in as few pieces as readers of streams expect."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import orjson

from engine.llm import JsonObject, Piece
from engine.records.streams import Stream

_OF_CHUNKS = frozenset({"id", "object", "created", "model", "usage", "choices"})
_AT_THE_END = ("stop_reason", "stop_sequence", "container", "context_management")
_DELTAS: Mapping[str, str] = MappingProxyType(
    {"text": "text_delta", "thinking": "thinking_delta", "signature": "signature_delta"}
)
"""By what a block of a message has, the type of the delta that tells it, under the same name."""


class Said:
    """A stream that has ended, said again: implements engine.records.control.LiveStream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        answer = stream.answer or {}
        self._pieces = chunks_of(answer) if "choices" in answer else events_of(answer)

    async def next(self) -> Piece | None:
        return next(self._pieces, None)

    def hang_up(self) -> None:
        """There is no call to drop."""


def chunks_of(answer: JsonObject) -> Iterator[JsonObject]:
    """A whole answer as the fewest chunks, as engine.llm.Piece has them: for each choice what it says, and its end."""
    about = {name: value for name, value in answer.items() if name not in _OF_CHUNKS}
    for choice in answer.get("choices", ()):
        told = {name: value for name, value in choice.items() if name not in ("message", "finish_reason")}
        yield {**about, "choices": [{**told, "delta": _delta(choice["message"]), "finish_reason": None}]}
        end = {"index": choice["index"], "delta": {}, "finish_reason": choice["finish_reason"]}
        yield {**about, "choices": [end]}


def _delta(message: JsonObject) -> JsonObject:
    said = {name: value for name, value in message.items() if value not in (None, "", [])}
    if "tool_calls" in said:
        said["tool_calls"] = [{"index": place, **call} for place, call in enumerate(said["tool_calls"])]
    return said


def events_of(message: JsonObject) -> Iterator[JsonObject]:
    """A whole answer of Anthropic's as its events: the head, each block with one delta for each part, and why it
    ended. The last event is whoever's who answers."""
    ending = {name: message[name] for name in _AT_THE_END if name in message}
    head = {**message, "content": [], **dict.fromkeys(ending)}
    yield {"type": "message_start", "message": head}
    for index, block in enumerate(message["content"]):
        start, deltas = _begun(block)
        yield {"type": "content_block_start", "index": index, "content_block": start}
        yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        yield {"type": "content_block_stop", "index": index}
    yield {"type": "message_delta", "delta": ending, "usage": message.get("usage") or {}}


def _begun(block: JsonObject) -> tuple[JsonObject, list[JsonObject]]:
    """The block as it begins, and what is told of it afterwards. What no delta can tell is there from the beginning."""
    start, deltas = dict(block), []
    for citation in block.get("citations") or ():
        start["citations"] = []
        deltas.append({"type": "citations_delta", "citation": citation})
    for name, kind in _DELTAS.items():
        if block.get(name) and (name != "text" or block["type"] == "text"):
            start[name] = ""
            deltas.append({"type": kind, name: block[name]})
    if isinstance(block.get("input"), dict):
        start["input"] = {}
        deltas.append({"type": "input_json_delta", "partial_json": orjson.dumps(block["input"]).decode()})
    return start, deltas
