"""Embeddings: OpenAI's, under Azure's path too, and Gemini's. Sources: as in the files of their chats."""

import base64
import struct
from collections.abc import Iterator
from typing import Any, ClassVar

from aiohttp import web

from tests.support.fake_provider.wire.gemini import GeminiWire
from tests.support.fake_provider.wire.openai import OpenAiWire
from tests.support.fake_provider.wire.port import Asked, Objection, Reply


class EmbeddingsWire(OpenAiWire):
    """A vector is the input's length, then halves, as many as `dimensions` wants, three by default."""

    name: ClassVar[str] = "openai_embeddings"
    paths: ClassVar[tuple[str, ...]] = (
        *("/v1/embeddings", "/models/embeddings", "/mistral/v1/embeddings"),
        "/openai/deployments/{deployment}/embeddings",
    )

    def read(self, request: web.Request, body: dict[str, Any]) -> Asked:
        key = request.headers.get("api-key") or request.headers.get("Authorization", "").removeprefix("Bearer ")
        model = request.match_info.get("deployment") or str(body["model"])
        attempt = request.headers.get("X-Client-Request-Id") or request.headers.get("x-ms-client-request-id", "")
        return Asked(model, "", "\n".join(map(str, _inputs(body))), key, attempt, body)

    def objection(self, asked: Asked) -> Objection | None:
        return None

    def answer(self, asked: Asked, reply: Reply) -> dict[str, Any]:
        inputs = _inputs(asked.body)
        vectors: list[Any] = [_vector(each, asked.body.get("dimensions")) for each in inputs]
        if asked.body.get("encoding_format") == "base64":
            vectors = [base64.b64encode(struct.pack(f"<{len(each)}f", *each)).decode() for each in vectors]
        data = [{"object": "embedding", "index": index, "embedding": each} for index, each in enumerate(vectors)]
        usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
        return {"object": "list", "model": asked.model, "data": data, "usage": usage}


class GeminiEmbeddingsWire(GeminiWire):
    name: ClassVar[str] = "gemini_embeddings"
    paths: ClassVar[tuple[str, ...]] = ("/v1beta/models/{model:[^:]+}:batchEmbedContents",)

    def read(self, request: web.Request, body: dict[str, Any]) -> Asked:
        model = request.match_info["model"]
        assert all(each["model"] == f"models/{model}" for each in body["requests"])
        return Asked(model, "", "\n".join(_texts(body)), request.headers["x-goog-api-key"], "", body)

    def answer(self, asked: Asked, reply: Reply) -> dict[str, Any]:
        size = asked.body["requests"][0].get("outputDimensionality")
        texts = _texts(asked.body)
        return {
            "embeddings": [{"values": _vector(text, size)} for text in texts],
            "usageMetadata": {"promptTokenCount": len(texts)},
        }

    def frames(self, asked: Asked, reply: Reply) -> Iterator[bytes]:
        raise NotImplementedError


def _inputs(body: dict[str, Any]) -> list[Any]:
    given = body["input"]
    return given if isinstance(given, list) and not isinstance(given[0], int) else [given]


def _texts(body: dict[str, Any]) -> list[str]:
    return ["".join(part["text"] for part in each["content"]["parts"]) for each in body["requests"]]


def _vector(given: str | list[int], size: int | None) -> list[float]:
    return [float(len(given)), *[0.5] * ((size or 3) - 1)]
