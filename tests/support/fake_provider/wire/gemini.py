"""Gemini's generateContent, whole and streamed. Source: ai.google.dev/api/generate-content and google.rpc.Status."""

from collections.abc import Iterator
from typing import Any, ClassVar

import orjson
from aiohttp import web

from tests.support.fake_provider.faults import TOOL_ARGUMENTS
from tests.support.fake_provider.wire.openai import said_by_user
from tests.support.fake_provider.wire.port import Asked, Objection, Reply, pieces_of

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
        parts = [{"text": reply.text}, *_calls(asked, reply)]
        return self._part(asked, reply, parts, _STOPS.get(reply.stop, "STOP"))

    def frames(self, asked: Asked, reply: Reply) -> Iterator[bytes]:
        for piece in pieces_of(reply.text):
            yield _frame(self._part(asked, reply, [{"text": piece}], None))
        for call in _calls(asked, reply):
            yield _frame(self._part(asked, reply, [call], None))
        yield _frame(self._part(asked, reply, [{"text": ""}], _STOPS.get(reply.stop, "STOP")))

    def error(self, reason: str, message: str, parameter: str | None = None) -> dict[str, Any]:
        code, status = _ERRORS[reason]
        quota = {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaId": f"GenerateRequestsPer{'Day' if reason == 'quota' else 'Minute'}PerProject"}],
        }
        error: dict[str, Any] = {"code": code, "message": message, "status": status}
        return {"error": {**error, "details": [quota]} if code == 429 else error}

    def _part(self, asked: Asked, reply: Reply, parts: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
        count = asked.body.get("generationConfig", {}).get("candidateCount") or 1
        candidates = [_candidate(asked, index, parts, finish) for index in range(count)]
        return {
            "candidates": candidates if reply.choices else [],
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


def _candidate(asked: Asked, index: int, parts: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": index}
    if finish is not None:
        candidate["finishReason"] = finish
    tokens = pieces_of("".join(part.get("text", "") for part in parts))
    if asked.body.get("generationConfig", {}).get("responseLogprobs") and tokens:
        chosen = [{"token": each, "tokenId": 1, "logProbability": -0.5} for each in tokens]
        candidate["logprobsResult"] = {"chosenCandidates": chosen}
    return candidate


def _calls(asked: Asked, reply: Reply) -> list[dict[str, Any]]:
    """Without ids, as older models have them; the first with the signature of a thought."""
    if reply.stop != "tools":
        return []
    offered = [each["name"] for tool in asked.body.get("tools") or () for each in tool["functionDeclarations"]]
    calls = [{"functionCall": {"name": name, "args": orjson.loads(TOOL_ARGUMENTS)}} for name in offered]
    return [{**call, **({} if number else {"thoughtSignature": "c2ln"})} for number, call in enumerate(calls)]


def _frame(chunk: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\r\n\r\n"


def _text(content: dict[str, Any]) -> str:
    return "".join(part.get("text", "") for part in content.get("parts", ()))
