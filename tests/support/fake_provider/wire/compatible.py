"""Vendors that speak OpenAI's chat completions with habits of their own. Sources: their API references."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

from tests.support.fake_provider.wire.openai import OpenAiWire
from tests.support.fake_provider.wire.port import Asked, Objection, Reply


class MistralWire(OpenAiWire):
    """Knows max_tokens only, refuses the rest as FastAPI does, answers in parts, and streams usage unasked."""

    name: ClassVar[str] = "mistral"
    paths: ClassVar[tuple[str, ...]] = ("/mistral/v1/chat/completions",)

    def objection(self, asked: Asked) -> Objection | None:
        for name in ("max_completion_tokens", "stream_options"):
            if name in asked.body:
                return Objection(name, "Extra inputs are not permitted")
        return None

    def frames(self, asked: Asked, reply: Reply) -> Iterator[bytes]:
        told = {**asked.body, "stream_options": {"include_usage": True}}
        stop = "content_filter" if reply.stop == "refusal" else reply.stop
        return super().frames(replace(asked, body=told), replace(reply, stop=stop))

    def answer(self, asked: Asked, reply: Reply) -> dict[str, Any]:
        document = super().answer(asked, reply)
        for choice in document["choices"]:
            thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Let me think."}]}
            choice["message"] = {"role": "assistant", "content": [thought, {"type": "text", "text": reply.text}]}
            choice["finish_reason"] = {"refusal": "content_filter", "length": "model_length"}.get(
                reply.stop, reply.stop
            )
        return document

    def error(self, reason: str, message: str, parameter: str | None = None) -> dict[str, Any]:
        if parameter is not None:
            return {"detail": [{"type": "extra_forbidden", "loc": ["body", parameter], "msg": message}]}
        kind = "billing_error" if reason == "quota" else reason
        return {"object": "error", "message": message, "type": kind, "param": None, "code": "1000"}


class DeepSeekWire(OpenAiWire):
    """Refuses schemas, counts cached input under a name of its own, and asks for money by 402."""

    name: ClassVar[str] = "deepseek"
    paths: ClassVar[tuple[str, ...]] = ("/deepseek/chat/completions",)
    quota_status: ClassVar[int] = 402

    def objection(self, asked: Asked) -> Objection | None:
        if (asked.body.get("response_format") or {}).get("type") == "json_schema":
            return Objection("response_format", "This response_format type is unavailable now")
        return None

    def answer(self, asked: Asked, reply: Reply) -> dict[str, Any]:
        document = super().answer(asked, reply)
        del document["usage"]["prompt_tokens_details"]
        document["usage"]["prompt_cache_hit_tokens"] = reply.cached_tokens
        document["usage"]["prompt_cache_miss_tokens"] = reply.input_tokens - reply.cached_tokens
        return document


class XaiWire(OpenAiWire):
    """Counts reasoning beside the output, and has errors that are plain texts."""

    name: ClassVar[str] = "xai"
    paths: ClassVar[tuple[str, ...]] = ("/xai/v1/chat/completions",)

    def answer(self, asked: Asked, reply: Reply) -> dict[str, Any]:
        document = super().answer(asked, reply)
        document["usage"]["completion_tokens"] -= reply.reasoning_tokens
        return document

    def error(self, reason: str, message: str, parameter: str | None = None) -> dict[str, Any]:
        told = "Your team has used all available credits" if reason == "quota" else message
        return {"code": "The request was refused", "error": told}


class LmStudioWire(OpenAiWire):
    """A local server: no key unless it was given one, and no JSON mode."""

    name: ClassVar[str] = "lmstudio"
    paths: ClassVar[tuple[str, ...]] = ("/lmstudio/v1/chat/completions",)

    def objection(self, asked: Asked) -> Objection | None:
        if (asked.body.get("response_format") or {}).get("type") == "json_object":
            return Objection("response_format", "'response_format.type' must be 'json_schema' or 'text'")
        return None


COMPATIBLE_WIRES = (MistralWire, DeepSeekWire, XaiWire, LmStudioWire)
