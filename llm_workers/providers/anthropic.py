"""Anthropic's Messages API.

The current SDK has no temperature argument, so none is sent. `max_tokens` is required; without a limit of the model's
it is 4096. There is no plain JSON mode. A JSON schema goes into output_config, as far as Anthropic's grammar can hold
it; one that a model refuses nevertheless is not sent to it again. No header carries an attempt's id.
"""

from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

import orjson

from engine.llm import (
    Completion,
    CompletionRequest,
    JsonObject,
    ProviderError,
    TransientProviderError,
    Turn,
    UnsupportedEndpoint,
)
from llm_workers.providers.anthropic_chat import DEFAULT_LIMIT, Events, chat_answer, chat_body, usage_of
from llm_workers.providers.anthropic_messages import BETAS, MessageEvents, message_body, read_message
from llm_workers.providers.chat_chunks import Translation
from llm_workers.providers.events import Fold
from llm_workers.providers.http import Embedding, HttpProvider, Reading, cut_off, nothing_said, refused_by_model
from llm_workers.providers.rehearsal import Rehearsal, rehearse
from llm_workers.providers.schemas import closed

if TYPE_CHECKING:
    import httpx2

    from llm_workers.transport import HttpAnswer, Transport

_ADDRESS = "https://api.anthropic.com"
_CUT_OFF = frozenset({"max_tokens", "model_context_window_exceeded"})
# Without one the SDK refuses large limits, because its own timeout would be too short for them.
_SDK_TIMEOUT_SECONDS = 600.0
_OF_A_SCHEMA = (b"output_config", b"output_format", b"schema", b"structured output")


class AnthropicProvider(HttpProvider):
    sdk = "Anthropic"
    takes_messages: ClassVar[bool] = True
    key_variable: ClassVar[str | None] = "ANTHROPIC_API_KEY"

    def __init__(self, transport: "Transport") -> None:
        super().__init__(transport)
        self._refused: set[tuple[str, str, bytes]] = set()

    def rehearse(self, request: CompletionRequest) -> Rehearsal:
        import anthropic  # noqa: PLC0415 - a second to import, and only where some model needs it

        def call(client: "httpx2.Client") -> object:
            sdk = anthropic.Anthropic(
                api_key=request.endpoint.key,
                base_url=base_url(request.endpoint.base_url) or _ADDRESS,
                max_retries=0,
                http_client=client,
            )
            return sdk.messages.with_raw_response.create(**self.body(request), timeout=_SDK_TIMEOUT_SECONDS)

        return rehearse(call)

    def body(self, request: CompletionRequest) -> JsonObject:
        if request.chat is not None:
            return chat_body(request.chat, request)
        if request.messages is not None:
            return message_body(request)
        turns = (Turn("user", request.user), *request.turns)
        body: JsonObject = {
            "model": request.endpoint.deployment,
            "max_tokens": request.max_tokens or DEFAULT_LIMIT,
            "messages": [{"role": turn.role, "content": turn.text} for turn in turns],
        }
        if request.system:
            body["system"] = request.system
        schema = self._schema(request)
        if schema is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        return body

    def fold(self) -> Fold:
        return _MessageFold()

    def headers_for(self, request: CompletionRequest) -> dict[str, str]:
        """What the client wants tried out, which Anthropic takes as a header."""
        wanted = (request.messages or {}).get(BETAS)
        return {"anthropic-beta": ",".join(wanted)} if wanted else {}

    def reading_of(self, request: CompletionRequest) -> Reading:
        return super().reading_of(request) if request.messages is None else read_message

    def fold_of(self, request: CompletionRequest) -> Fold:
        return super().fold_of(request) if request.messages is None else MessageEvents()

    def read_folded(self, document: JsonObject, request: CompletionRequest) -> Completion:
        return super().read_folded(document, request) if request.messages is None else read_message(document, request)

    def chat_answer(self, document: JsonObject, request: CompletionRequest, now: datetime) -> JsonObject:
        return chat_answer(document, request, now)

    def chat_translation(self) -> Translation:
        return Events()

    def embedding(self, request: CompletionRequest) -> Embedding:  # noqa: ARG002 - whatever is asked
        raise UnsupportedEndpoint("Anthropic has no embeddings")

    def read(self, document: JsonObject, request: CompletionRequest) -> Completion:
        usage = usage_of(document.get("usage") or {})
        blocks = [block["text"] for block in document["content"] if block["type"] == "text"]
        text, reason = "".join(blocks), document.get("stop_reason")
        if reason == "refusal":
            raise refused_by_model(text, usage)
        if reason in _CUT_OFF and request.response_format != "text":
            raise cut_off(text, usage)
        if not blocks:
            raise nothing_said(usage)
        return Completion(text=text, usage=usage, finish_reason=reason)

    def refusal(self, answer: "HttpAnswer", request: CompletionRequest, sent: JsonObject) -> ProviderError:
        error = super().refusal(answer, request, sent)
        if (
            request.chat is not None
            or request.messages is not None
            or answer.status != 400
            or "output_config" not in sent
        ):
            return error
        if not _speaks_of_a_schema(answer.body):
            return error
        self._refused.add(_place(request))
        return TransientProviderError(
            f"{self.sdk}: {request.endpoint.deployment} refused the JSON schema; it is left out from now on",
            status=400,
            raw=error.raw,
            request_id=error.request_id,
        )

    def _schema(self, request: CompletionRequest) -> JsonObject | None:
        wanted = request.response_format
        if not isinstance(wanted, dict) or (self._refused and _place(request) in self._refused):
            return None
        return closed(wanted["schema"])


class _MessageFold:
    """Adds the events of a streamed message up; the counts in them are of all that came before."""

    def __init__(self) -> None:
        self.ended = False
        self._reason: str | None = None
        self._usage: JsonObject = {}

    def feed(self, event: JsonObject) -> str:
        kind = event["type"]
        if kind == "message_start":
            self._usage = event["message"].get("usage") or {}
        elif kind == "message_delta":
            self._reason = event["delta"].get("stop_reason")
            self._usage = {**self._usage, **(event.get("usage") or {})}
        self.ended = self.ended or kind == "message_stop"
        return str(event["delta"].get("text", "")) if kind == "content_block_delta" else ""

    def document(self, text: str) -> JsonObject:
        content = [{"type": "text", "text": text}] if text else []
        return {"content": content, "stop_reason": self._reason, "usage": self._usage}


def _speaks_of_a_schema(body: bytes) -> bool:
    return any(word in body for word in _OF_A_SCHEMA)


def _place(request: CompletionRequest) -> tuple[str, str, bytes]:
    """Where which schema was refused."""
    return request.endpoint.base_url, request.endpoint.deployment, orjson.dumps(request.response_format)


def base_url(endpoint: str) -> str:
    """What the SDK takes: without the path that it adds itself."""
    return endpoint.strip().rstrip("/").removesuffix("/messages").removesuffix("/v1")
