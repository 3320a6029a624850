"""Chats for Anthropic's Messages API: there and back. Source: the types of anthropics/anthropic-sdk-python 2.14.

The API takes no temperature any more, so a chat's is left out as a job's is; other ways to steer the sampling are
refused, and so is JSON mode, which does not exist there.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from engine.llm import CompletionRequest, JsonObject, UnsupportedParameter, Usage
from llm_workers.chats import SYSTEM_ROLES, messages_of
from llm_workers.providers.chat_answers import answer_body, choice, count, tool_call, usage_shape
from llm_workers.providers.chat_parts import (
    calls_in,
    choice_of_tool,
    data_in,
    effort_in,
    functions_in,
    parts_of,
    refuse_others,
    schema_in,
    stops_in,
    text_of,
)
from llm_workers.providers.schemas import closed

DEFAULT_LIMIT = 4096
_TAKEN = frozenset(
    {
        *("tools", "tool_choice", "parallel_tool_calls", "stop", "response_format", "reasoning_effort"),
        *("thinking", "cache_control"),  # Anthropic's own, for clients that know whom they ask
    }
)
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh"}
_CHOICES = {"auto": "auto", "none": "none", "required": "any", "function": "tool"}
_REASONS = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_NO_PARAMETERS: JsonObject = {"type": "object", "properties": {}}


def chat_body(chat: JsonObject, request: CompletionRequest) -> JsonObject:
    """Raises UnsupportedParameter for what has no counterpart."""
    refuse_others(chat, _TAKEN, "Anthropic")
    system = [text_of(message, place) for place, message in _placed(chat) if message["role"] in SYSTEM_ROLES]
    body: JsonObject = {
        "model": request.endpoint.deployment,
        "max_tokens": request.max_tokens or DEFAULT_LIMIT,
        "messages": _messages(chat),
        "system": "\n\n".join(text for text in system if text),
        "stop_sequences": stops_in(chat),
        "tools": [_tool(function) for function in functions_in(chat)],
        "tool_choice": _tool_choice(chat),
        "output_config": _output(chat),
        "metadata": _metadata(chat),
        "thinking": chat.get("thinking"),
        "cache_control": chat.get("cache_control"),
    }
    return {name: value for name, value in body.items() if value}


def _placed(chat: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    return ((f"messages[{number}]", message) for number, message in enumerate(messages_of(chat)))


def _messages(chat: JsonObject) -> list[JsonObject]:
    """Without the system's; messages of one side that follow each other are one, as results of tools have to be."""
    messages: list[JsonObject] = []
    for place, message in _placed(chat):
        if message["role"] in SYSTEM_ROLES:
            continue
        role = "assistant" if message["role"] == "assistant" else "user"
        blocks = list(_blocks(message, place))
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += blocks
        elif blocks:
            messages.append({"role": role, "content": blocks})
    if not messages:
        raise UnsupportedParameter("messages", "Anthropic wants a message of the user's")
    return messages


def _blocks(message: JsonObject, place: str) -> Iterator[JsonObject]:
    role = message["role"]
    if role == "tool":
        answered = str(message.get("tool_call_id") or "")
        yield {"type": "tool_result", "tool_use_id": answered, "content": text_of(message, place)}
        return
    if role not in ("user", "assistant"):
        raise UnsupportedParameter(f"{place}.role", "none of system, developer, user, assistant, tool")
    for kind, value in parts_of(message, place):
        if kind == "text" and value:
            yield {"type": "text", "text": value}
        elif kind != "text":
            yield {"type": "image" if kind == "image" else "document", "source": _source(value, kind, place)}
    if role == "assistant":
        for _, call_id, name, arguments in calls_in(message, place):
            yield {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def _source(url: str, kind: str, place: str) -> JsonObject:
    data = data_in(url)
    if data is not None:
        return {"type": "base64", "media_type": data[0], "data": data[1]}
    if kind == "image" and url.startswith(("https://", "http://")):
        return {"type": "url", "url": url}
    raise UnsupportedParameter(f"{place}.content", f"the {kind} is neither a data URL in base64 nor on the web")


def _tool(function: JsonObject) -> JsonObject:
    tool = {"name": function["name"], "input_schema": function.get("parameters") or _NO_PARAMETERS}
    return tool | {name: function[name] for name in ("description", "strict") if function.get(name)}


def _tool_choice(chat: JsonObject) -> JsonObject | None:
    kind, name = choice_of_tool(chat)
    alone = chat.get("parallel_tool_calls") is False
    if not chat.get("tools") or (kind is None and not alone):
        return None
    chosen: JsonObject = {"type": _CHOICES[kind or "auto"]}
    if name is not None:
        chosen["name"] = name
    if alone and kind != "none":
        chosen["disable_parallel_tool_use"] = True
    return chosen


def _output(chat: JsonObject) -> JsonObject:
    kind, schema = schema_in(chat)
    if kind == "json_object":
        raise UnsupportedParameter("response_format", "Anthropic has no JSON mode; ask for a json_schema")
    output: JsonObject = {}
    if schema is not None:
        form = closed(schema)
        if form is None:
            raise UnsupportedParameter("response_format", "Anthropic's grammar cannot hold this schema")
        output["format"] = {"type": "json_schema", "schema": form}
    effort = effort_in(chat, _EFFORTS)
    return output if effort is None else {**output, "effort": effort}


def _metadata(chat: JsonObject) -> JsonObject | None:
    user = chat.get("safety_identifier") or chat.get("user")
    return {"user_id": user} if isinstance(user, str) else None


def chat_answer(document: JsonObject, request: CompletionRequest, now: datetime) -> JsonObject:
    """A whole message in OpenAI's shape. One without content is an answer: after results of tools it happens."""
    blocks = document["content"]
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    calls = [tool_call(block["id"], block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"]
    reason = _REASONS.get(document.get("stop_reason") or "", "stop")
    usage = usage_of(document.get("usage") or {})
    model = document.get("model") or request.endpoint.deployment
    return answer_body(document["id"], model, [choice(0, text, reason, tool_calls=calls)], usage, now)


class Events:
    """A streamed message's events as OpenAI's chunks; the counts in them are of all that came before."""

    def __init__(self) -> None:
        self._usage: JsonObject = {}
        self._calls: dict[int, int] = {}
        self._silent: set[int] = set()

    def __call__(self, event: JsonObject) -> JsonObject | None:
        kind = event["type"]
        if kind == "message_start":
            message = event["message"]
            return {"id": f"chatcmpl-{message['id']}", "model": message.get("model"), **self._counted(message)}
        if kind == "message_delta":
            reason = _REASONS.get(event["delta"].get("stop_reason") or "", "stop")
            return {**_chunk({}, reason), **self._counted(event)}
        return self._in_block(kind, event)

    def _in_block(self, kind: str, event: JsonObject) -> JsonObject | None:
        if kind == "content_block_start" and event["content_block"]["type"] == "tool_use":
            return self._call(event["index"], event["content_block"])
        if kind == "content_block_delta":
            return self._delta(event["index"], event["delta"])
        if kind == "content_block_stop" and event["index"] in self._silent:
            return self._arguments(event["index"], "{}")
        return None

    def _call(self, index: int, block: JsonObject) -> JsonObject:
        place = self._calls.setdefault(index, len(self._calls))
        self._silent.add(index)
        function = {"name": block["name"], "arguments": ""}
        return _chunk({"tool_calls": [{"index": place, "id": block["id"], "type": "function", "function": function}]})

    def _delta(self, index: int, delta: JsonObject) -> JsonObject | None:
        if delta["type"] == "text_delta":
            return _chunk({"content": delta["text"]})
        if delta["type"] == "input_json_delta" and index in self._calls and delta["partial_json"]:
            return self._arguments(index, delta["partial_json"])
        return None

    def _arguments(self, index: int, text: str) -> JsonObject:
        self._silent.discard(index)
        return _chunk({"tool_calls": [{"index": self._calls[index], "function": {"arguments": text}}]})

    def _counted(self, event: JsonObject) -> JsonObject:
        self._usage = {**self._usage, **(event.get("usage") or {})}
        return {"usage": usage_shape(usage_of(self._usage))}


def _chunk(delta: JsonObject, reason: str | None = None) -> JsonObject:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def usage_of(usage: JsonObject) -> Usage:
    """Anthropic counts cached input beside the input, not in it."""
    cached = count(usage.get("cache_read_input_tokens"))
    details: Any = usage.get("output_tokens_details") or {}
    return Usage(
        input_tokens=count(usage.get("input_tokens")) + count(usage.get("cache_creation_input_tokens")) + cached,
        output_tokens=count(usage.get("output_tokens")),
        cached_input_tokens=cached,
        reasoning_tokens=count(details.get("thinking_tokens")),
    )
