"""Gemini's generateContent, whole and streamed. Source: ai.google.dev/api/generate-content and google.rpc.Status."""

from collections.abc import Iterator
from typing import Any, ClassVar

import orjson
from aiohttp import web

from tests.support.fake_provider.wire.openai import said_by_user
from tests.support.fake_provider.wire.port import Asked, Objection, Reply

_PATH = "/v1beta/models/{model:[^:]+}:"
_ROLES = {"user": "user", "model": "assistant"}
_STOPS = {"length": "MAX_TOKENS", "refusal": "SAFETY", "content_filter": "PROHIBITED_CONTENT"}
_ERRORS = {
    "rate_limit": (429, "RESOURCE_EXHAUSTED"),
    "quota": (429, "RESOURCE_EXHAUSTED"),
    "key": (401, "UNAUTHENTICATED"),
    "request": (400, "INVALID_ARGUMENT"),
    "server": (500, "INTERNAL"),
}


class GeminiWire:
    name: ClassVar[str] = "gemini"
    paths: ClassVar[tuple[str, ...]] = (f"{_PATH}generateContent", f"{_PATH}streamGenerateContent")
    quota_status: ClassVar[int] = 429

    def read(self, request: web.Request, body: dict[str, Any]) -> Asked:
        system = _text(body.get("systemInstruction") or {})
        turns = [(_ROLES[content["role"]], _text(content)) for content in body["contents"]]
        stream = request.path.endswith("streamGenerateContent")
        model, key = request.match_info["model"], request.headers["x-goog-api-key"]
        return Asked(model, system, said_by_user(turns), key, "", body, stream, tuple(turns[1:]))

    def objection(self, asked: Asked) -> Objection | None:
        return None

    def answer(self, asked: Asked, reply: Reply) -> dict[str, Any]:
        return self._part(asked, reply, reply.text, _STOPS.get(reply.stop, "STOP"))

    def frames(self, asked: Asked, reply: Reply) -> Iterator[bytes]:
        for start in range(0, len(reply.text), 8):
            chunk = self._part(asked, reply, reply.text[start : start + 8], None)
            yield b"data: " + orjson.dumps(chunk) + b"\r\n\r\n"
        last = self._part(asked, reply, "", _STOPS.get(reply.stop, "STOP"))
        yield b"data: " + orjson.dumps(last) + b"\r\n\r\n"

    def error(self, reason: str, message: str, parameter: str | None = None) -> dict[str, Any]:
        code, status = _ERRORS[reason]
        quota = {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaId": f"GenerateRequestsPer{'Day' if reason == 'quota' else 'Minute'}PerProject"}],
        }
        error: dict[str, Any] = {"code": code, "message": message, "status": status}
        return {"error": {**error, "details": [quota]} if code == 429 else error}

    def _part(self, asked: Asked, reply: Reply, text: str, finish: str | None) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
        if finish is not None:
            candidate["finishReason"] = finish
        return {
            "candidates": [candidate] if reply.choices else [],
            "usageMetadata": {
                "promptTokenCount": reply.input_tokens,
                "candidatesTokenCount": reply.output_tokens - reply.reasoning_tokens,
                "thoughtsTokenCount": reply.reasoning_tokens,
                "cachedContentTokenCount": reply.cached_tokens,
                "totalTokenCount": reply.input_tokens + reply.output_tokens,
            },
            "modelVersion": asked.model,
            "responseId": "fake",
        }


def _text(content: dict[str, Any]) -> str:
    return "".join(part.get("text", "") for part in content.get("parts", ()))
