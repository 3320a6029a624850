"""Anthropic's Messages, whole and streamed. Source: the types of anthropics/anthropic-sdk-python 2.12."""

from collections.abc import Iterator
from typing import Any, ClassVar

import orjson
from aiohttp import web

from tests.support.fake_provider.faults import TOOL_ARGUMENTS
from tests.support.fake_provider.wire.openai import said_by_user, text_of
from tests.support.fake_provider.wire.port import Asked, Objection, Reply, pieces_of

_REASONS = {
    "rate_limit": "rate_limit_error",
    "quota": "billing_error",
    "key": "authentication_error",
    "request": "invalid_request_error",
    "server": "api_error",
}
_STOPS = {"tools": "tool_use", "length": "max_tokens", "refusal": "refusal", "content_filter": "refusal"}


class AnthropicWire:
    name: ClassVar[str] = "anthropic"
    paths: ClassVar[tuple[str, ...]] = ("/v1/messages",)
    quota_status: ClassVar[int] = 402

    def read(self, request: web.Request, body: dict[str, Any]) -> Asked:
        if "anthropic-version" not in request.headers:
            raise web.HTTPBadRequest(text='{"type": "error", "error": {"type": "invalid_request_error"}}')
        key = request.headers.get("x-api-key") or request.headers.get("Authorization", "").removeprefix("Bearer ")
        turns = [(message["role"], text_of(message["content"])) for message in body["messages"]]
        system, stream = text_of(body.get("system")), bool(body.get("stream"))
        betas = request.headers.get("anthropic-beta", "")
        return Asked(body["model"], system, said_by_user(turns), key, "", body, stream, tuple(turns[1:]), betas)

    def objection(self, asked: Asked) -> Objection | None:
        for name in ("temperature", "top_p", "top_k"):
            if name in asked.body:
                return Objection(name, f"{name}: Extra inputs are not permitted")
        if "max_tokens" not in asked.body:
            return Objection("max_tokens", "max_tokens: Field required")
        return _objection_to(asked)

    def answer(self, asked: Asked, reply: Reply) -> dict[str, Any]:
        text = [{"type": "text", "text": reply.text}] if reply.choices else []
        return {
            "id": "msg_fake",
            "type": "message",
            "role": "assistant",
            "model": asked.model,
            "content": [*text, *_calls(asked, reply)],
            "stop_reason": _STOPS.get(reply.stop, "end_turn"),
            "stop_sequence": None,
            "usage": _usage(reply),
        }

    def frames(self, asked: Asked, reply: Reply) -> Iterator[bytes]:
        whole = self.answer(asked, reply)
        opening = {**whole, "content": [], "stop_reason": None}
        yield _event("message_start", message=opening)
        yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for piece in pieces_of(reply.text):
            yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
        yield _event("content_block_stop", index=0)
        for index, call in enumerate(_calls(asked, reply), 1):
            yield from _called(index, call)
        end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        yield _event("message_delta", delta=end, usage={"output_tokens": reply.output_tokens})
        yield _event("message_stop")

    def error(self, reason: str, message: str, parameter: str | None = None) -> dict[str, Any]:
        error = {"type": _REASONS[reason], "message": message}
        return {"type": "error", "error": error, "request_id": "req_fake"}


def _calls(asked: Asked, reply: Reply) -> list[dict[str, Any]]:
    names = [tool["name"] for tool in asked.body.get("tools") or ()] if reply.stop == "tools" else []
    arguments = orjson.loads(TOOL_ARGUMENTS)
    return [
        {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": arguments}
        for number, name in enumerate(names)
    ]


def _called(index: int, call: dict[str, Any]) -> Iterator[bytes]:
    yield _event("content_block_start", index=index, content_block={**call, "input": {}})
    for piece in ["", *pieces_of(TOOL_ARGUMENTS)]:
        yield _event("content_block_delta", index=index, delta={"type": "input_json_delta", "partial_json": piece})
    yield _event("content_block_stop", index=index)


def _objection_to(asked: Asked) -> Objection | None:
    """Open objects and bounds are refused by every model, any schema by a model whose name starts with `old`."""
    given = (asked.body.get("output_config") or {}).get("format")
    if given is None:
        return None
    if asked.model.startswith("old"):
        return Objection("output_config", "output_config: Extra inputs are not permitted")
    for part in _parts(given["schema"]):
        if part.get("type") == "object" and part.get("additionalProperties") is not False:
            return Objection("output_config", "output_config.format.schema: 'additionalProperties' must be false")
        if "minimum" in part:
            return Objection("output_config", "output_config.format.schema: property 'minimum' is not supported")
    return None


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, list):
        for item in schema:
            yield from _parts(item)
    if isinstance(schema, dict):
        yield schema
        for item in schema.values():
            yield from _parts(item)


def _usage(reply: Reply) -> dict[str, Any]:
    return {
        "input_tokens": reply.input_tokens - reply.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": reply.cached_tokens,
        "output_tokens": reply.output_tokens,
        "output_tokens_details": {"thinking_tokens": reply.reasoning_tokens},
    }


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps({"type": kind, **fields}) + b"\n\n"
