"""Requests to Anthropic's Messages API as clients make them: sent as they are, and answered as the vendor answers.

Source: the types of anthropics/anthropic-sdk-python 2.14, whose own accumulation of a stream this follows.
"""

from typing import Any

import orjson

from engine.llm import Completion, CompletionRequest, JsonObject
from llm_workers.providers.anthropic_chat import usage_of

BETAS = "anthropic_beta"
"""In a stored request, what its anthropic-beta header named: a list of texts."""

_PARTS = {"text_delta": "text", "input_json_delta": "partial_json", "thinking_delta": "thinking"}
_WHOLE = {"signature_delta": "signature"}


def message_body(request: CompletionRequest) -> JsonObject:
    """The client's own, held to the model's limits. Whether it is streamed is the call's to say."""
    body = {name: value for name, value in (request.messages or {}).items() if name not in ("stream", BETAS)}
    body |= {"model": request.endpoint.deployment, "max_tokens": request.max_tokens}
    if request.temperature is not None:
        body["temperature"] = request.temperature
    return body


def read_message(document: JsonObject, request: CompletionRequest) -> Completion:  # noqa: ARG001 - a Reading's
    """Refusals and limits are in its stop_reason, as the client expects them."""
    texts = [block["text"] for block in document["content"] if block["type"] == "text"]
    return Completion(
        text="".join(texts),
        usage=usage_of(document.get("usage") or {}),
        finish_reason=document.get("stop_reason"),
        body=document,
    )


class MessageEvents:
    """Adds a streamed message up, whose events are the pieces: implements llm_workers.providers.events.Fold.

    The last event is none of them: whoever answers the client sends it when the end is stored.
    """

    def __init__(self) -> None:
        self.ended = False
        self._message: JsonObject = {}
        self._blocks: dict[int, JsonObject] = {}
        self._parts: dict[int, list[str]] = {}

    def feed(self, event: JsonObject) -> JsonObject | None:
        kind = event["type"]
        if kind == "message_start":
            self._message = dict(_part(event, "message"))
        elif kind == "content_block_start":
            self._blocks[event["index"]] = dict(_part(event, "content_block"))
        elif kind == "content_block_delta":
            self._grow(event["index"], _part(event, "delta"))
        elif kind == "message_delta":
            usage = {**(self._message.get("usage") or {}), **(event.get("usage") or {})}
            self._message = {**self._message, **_part(event, "delta"), "usage": usage}
        self.ended = self.ended or kind == "message_stop"
        return None if kind == "message_stop" else event

    def document(self, text: str) -> JsonObject:  # noqa: ARG002 - a message's text is in its blocks
        content = [self._whole(index) for index in sorted(self._blocks)]
        return {**self._message, "content": content}

    def _grow(self, index: int, delta: JsonObject) -> None:
        block, kind = self._blocks[index], delta["type"]
        if kind in _PARTS:
            self._parts.setdefault(index, []).append("" + delta[_PARTS[kind]])
        elif kind in _WHOLE:
            block[_WHOLE[kind]] = delta[_WHOLE[kind]]
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta["citation"]]

    def _whole(self, index: int) -> JsonObject:
        block, said = self._blocks[index], "".join(self._parts.get(index, ()))
        if not said:
            return block
        if "input" in block:
            return {**block, "input": _object(said)}
        name = "thinking" if block["type"] == "thinking" else "text"
        return {**block, name: (block.get(name) or "") + said}


def _part(event: JsonObject, name: str) -> JsonObject:
    """An object in an event. Raises TypeError for anything else."""
    part = event[name]
    if not isinstance(part, dict):
        raise TypeError(f"{name} is no object")
    return part


def _object(text: str) -> Any:
    """A tool's arguments; what broke off is no object."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
