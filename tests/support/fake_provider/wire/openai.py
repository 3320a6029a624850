"""OpenAI's chat completions, whole and streamed. Source: openai/openai-openapi openapi.yaml 2.3.0."""

import re
from collections.abc import Iterator
from typing import Any, ClassVar

import orjson
from aiohttp import web

from tests.support.fake_provider.faults import TOOL_ARGUMENTS
from tests.support.fake_provider.wire.port import Asked, Objection, Reply, pieces_of

_REASONING = re.compile(r"(o\d|gpt-5|thinker)(?!-chat)")
_SYSTEM = ("system", "developer")
_REASONS = {
    "rate_limit": ("requests", "rate_limit_exceeded"),
    "quota": ("insufficient_quota", "insufficient_quota"),
    "key": ("invalid_request_error", "invalid_api_key"),
    "request": ("invalid_request_error", "unsupported_value"),
    "server": ("server_error", None),
}


class OpenAiWire:
    name: ClassVar[str] = "openai"
    paths: ClassVar[tuple[str, ...]] = ("/v1/chat/completions",)
    quota_status: ClassVar[int] = 429

    def read(self, request: web.Request, body: dict[str, Any]) -> Asked:
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return self.asked(body, str(body.get("model", "")), key, request)

    def asked(self, body: dict[str, Any], model: str, key: str, request: web.Request) -> Asked:
        said = [(message["role"], text_of(message.get("content"))) for message in body.get("messages", ())]
        system = "\n".join(text for role, text in said if role in _SYSTEM)
        turns = [each for each in said if each[0] not in _SYSTEM]
        attempt = request.headers.get("X-Client-Request-Id") or request.headers.get("x-ms-client-request-id", "")
        stream = bool(body.get("stream"))
        return Asked(model, system, said_by_user(turns), key, attempt, body, stream, tuple(turns[1:]))

    def objection(self, asked: Asked) -> Objection | None:
        if not _REASONING.match(asked.model):
            return None
        if "temperature" in asked.body:
            return Objection("temperature", "Unsupported value: 'temperature' does not support this value.")
        if "max_tokens" in asked.body:
            return Objection("max_tokens", "Unsupported parameter: use 'max_completion_tokens' instead.")
        return None

    def answer(self, asked: Asked, reply: Reply) -> dict[str, Any]:
        count = asked.body.get("n") or 1
        return {
            "id": "chatcmpl-fake",
            "object": "chat.completion",
            "created": 1750000000,
            "model": asked.model,
            "choices": [_choice(asked, reply, index) for index in range(count)] if reply.choices else [],
            "usage": _usage(reply),
            "system_fingerprint": "fp_fake",
        }

    def frames(self, asked: Asked, reply: Reply) -> Iterator[bytes]:
        count = asked.body.get("n") or 1
        for index in range(count):
            yield _frame(asked, [_delta(index, {"role": "assistant", "content": ""})])
        field = "refusal" if reply.stop == "refusal" else "content"
        for piece in pieces_of(reply.text):
            for index in range(count):
                yield _frame(asked, [_delta(index, {field: piece}, logprobs=_logprobs(asked, [piece]))])
        for delta in _calls_in_pieces(asked, reply):
            yield _frame(asked, [_delta(0, delta)])
        for index in range(count):
            yield _frame(asked, [_delta(index, {}, _finish(reply))])
        if (asked.body.get("stream_options") or {}).get("include_usage"):
            yield _frame(asked, [], _usage(reply))
        yield b"data: [DONE]\n\n"

    def error(self, reason: str, message: str, parameter: str | None = None) -> dict[str, Any]:
        kind, code = _REASONS[reason]
        return {"error": {"message": message, "type": kind, "param": parameter, "code": code}}


def said_by_user(turns: list[tuple[str, str]]) -> str:
    return "\n".join(text for role, text in turns if role == "user")


def text_of(content: Any) -> str:
    """A message's text, plain or in parts."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def called(asked: Asked, reply: Reply) -> list[str]:
    """The names of the functions that the model calls: all that it was offered, in OpenAI's format."""
    return [tool["function"]["name"] for tool in asked.body.get("tools") or ()] if reply.stop == "tools" else []


def _choice(asked: Asked, reply: Reply, index: int) -> dict[str, Any]:
    refused, names = reply.stop == "refusal", called(asked, reply)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if refused else reply.text,
        "refusal": reply.text if refused else None,
    }
    if names:
        message["tool_calls"] = [
            {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": TOOL_ARGUMENTS}}
            for number, name in enumerate(names)
        ]
    logprobs = _logprobs(asked, pieces_of(reply.text))
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": _finish(reply)}


def _calls_in_pieces(asked: Asked, reply: Reply) -> Iterator[dict[str, Any]]:
    for number, name in enumerate(called(asked, reply)):
        function = {"name": name, "arguments": ""}
        yield {"tool_calls": [{"index": number, "id": f"call_{number}", "type": "function", "function": function}]}
        for piece in pieces_of(TOOL_ARGUMENTS):
            yield {"tool_calls": [{"index": number, "function": {"arguments": piece}}]}


def _logprobs(asked: Asked, tokens: list[str]) -> dict[str, Any] | None:
    if not asked.body.get("logprobs"):
        return None
    content = [{"token": each, "logprob": -0.5, "bytes": list(each.encode()), "top_logprobs": []} for each in tokens]
    return {"content": content, "refusal": None}


def _finish(reply: Reply) -> str:
    return {"refusal": "stop", "tools": "tool_calls"}.get(reply.stop, reply.stop)


def _usage(reply: Reply) -> dict[str, Any]:
    return {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.input_tokens + reply.output_tokens,
        "prompt_tokens_details": {"cached_tokens": reply.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
    }


def _delta(
    index: int, delta: dict[str, Any], finish: str | None = None, logprobs: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def _frame(asked: Asked, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
    chunk = {
        "id": "chatcmpl-fake",
        "object": "chat.completion.chunk",
        "created": 1750000000,
        "model": asked.model,
        "choices": choices,
        "usage": usage,
        "system_fingerprint": "fp_fake",
    }
    return b"data: " + orjson.dumps(chunk) + b"\n\n"
