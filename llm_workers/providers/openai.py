"""OpenAI, and every endpoint that speaks its chat completions, by the model's base URL or a vendor's name.

How endpoints differ is in compatible.py; what is decided here:

- `max_completion_tokens` goes to vendors that want it and to reasoning models, `max_tokens` to all others: OpenAI
  deprecates the latter, many compatible servers know no other.
- Reasoning models get no temperature. Should an endpoint refuse a parameter nevertheless, it is left out from then on
  (a token limit gets its other name first) and the call fails as transient, so that the next attempt goes through.
- In a chat only what we add or name ourselves is left out so: what the client asked for and the vendor refuses is the
  client's to know.
- JSON mode is asked for where it is known to work, and only when the prompts speak of JSON, without which OpenAI
  refuses it. A JSON schema is sent everywhere but where it is known to be refused.
"""

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from engine.llm import Completion, CompletionRequest, JsonObject, ProviderError, TransientProviderError
from llm_workers.providers.chat_answers import content_text, usage_of
from llm_workers.providers.chat_chunks import Translation
from llm_workers.providers.compatible import Compatible, spoken_at
from llm_workers.providers.events import Fold
from llm_workers.providers.faults import unwanted_parameter
from llm_workers.providers.http import (
    Embedding,
    HttpProvider,
    broken_off,
    cut_off,
    filtered,
    nothing_said,
    refused_by_model,
)
from llm_workers.providers.openai_chat import chunk, completed, embedding_of, passed_on
from llm_workers.providers.rehearsal import Rehearsal, rehearse

if TYPE_CHECKING:
    import httpx2

    from llm_workers.transport import HttpAnswer, Transport

_REASONING = re.compile(r"(o\d|gpt-5)(?!.*chat)", re.IGNORECASE)
_CUT_OFF = frozenset({"length", "model_length"})
_BROKEN_OFF = frozenset({"error", "insufficient_system_resource"})
_OPTIONAL = frozenset({"temperature", "max_tokens", "max_completion_tokens", "response_format", "stream_options"})

_OTHER_LIMIT = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
# OpenAI's client insists on a key, and takes one from the environment where it is given none.
_NO_KEY = "none"


class OpenAiProvider(HttpProvider):
    sdk = "OpenAI"
    attempt_header = "X-Client-Request-Id"
    key_variable: ClassVar[str | None] = "OPENAI_API_KEY"
    habits: ClassVar[Compatible | None] = None

    def __init__(self, transport: "Transport", vendor: Compatible | None = None) -> None:
        """Without a vendor, each endpoint's is known by its host."""
        super().__init__(transport)
        self._vendor = vendor or self.habits
        self.sdk = self.sdk if vendor is None else vendor.sdk
        self._unwanted: set[tuple[str, str, str]] = set()

    def vendor(self, request: CompletionRequest) -> Compatible:
        """Whose habits the endpoint has."""
        return self._vendor or spoken_at(request.endpoint.base_url)

    def rehearse(self, request: CompletionRequest) -> Rehearsal:
        import openai  # noqa: PLC0415 - half a second to import, and only where some model needs it

        def call(client: "httpx2.Client") -> object:
            sdk = openai.OpenAI(
                api_key=request.endpoint.key or _NO_KEY,
                base_url=base_url(request.endpoint.base_url or self.vendor(request).base_url),
                max_retries=0,
                http_client=client,
            )
            return sdk.chat.completions.with_raw_response.create(**self.body(request))

        rehearsal = rehearse(call)
        return rehearsal if request.endpoint.key else rehearsal.without("authorization")

    def body(self, request: CompletionRequest) -> JsonObject:
        options = {name: value for name, value in self._options(request) if value is not None}
        if self._unwanted:
            for name in [name for name in options if self._is_left_out(request, name)]:
                self._leave_out(options, name, _place(request))
        if request.chat is not None:
            return {"model": request.endpoint.deployment, **passed_on(request.chat), **options}
        messages = [{"role": "system", "content": request.system}] if request.system else []
        messages.append({"role": "user", "content": request.user})
        messages += ({"role": turn.role, "content": turn.text} for turn in request.turns)
        return {"model": request.endpoint.deployment, "messages": messages, **options}

    def stream_body(self, request: CompletionRequest) -> JsonObject:
        body = super().stream_body(request)
        if self.vendor(request).stream_usage and (*_place(request), "stream_options") not in self._unwanted:
            body["stream_options"] = {"include_usage": True}
        return body

    def fold(self) -> Fold:
        return _ChunkFold()

    def chat_answer(self, document: JsonObject, request: CompletionRequest, now: datetime) -> JsonObject:
        return completed(document, request, now)

    def chat_translation(self) -> Translation:
        return chunk

    def embedding(self, request: CompletionRequest) -> Embedding:
        return embedding_of(request)

    def read(self, document: JsonObject, request: CompletionRequest) -> Completion:
        usage = usage_of(document.get("usage") or {})
        if not document["choices"]:
            raise nothing_said(usage)
        choice = document["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        text = content_text(message.get("content"))
        if message.get("refusal"):
            raise refused_by_model(message["refusal"], usage)
        if reason == "content_filter":
            raise filtered(reason, text, usage)
        if reason in _BROKEN_OFF:
            raise broken_off(reason, text, usage)
        if reason in _CUT_OFF and request.response_format != "text":
            raise cut_off(text, usage)
        return Completion(text=text, usage=usage, finish_reason=reason)

    def refusal(self, answer: "HttpAnswer", request: CompletionRequest, sent: JsonObject) -> ProviderError:
        error = super().refusal(answer, request, sent)
        ours = {name for name in sent.keys() & _OPTIONAL if self._is_ours(request, name)}
        parameter = unwanted_parameter(answer.status, answer.body, ours)
        if parameter is None:
            return error
        self._unwanted.add((*_place(request), parameter))
        return TransientProviderError(
            f"{self.sdk}: {request.endpoint.deployment} takes no {parameter}; it is left out from now on",
            status=answer.status,
            raw=error.raw,
            request_id=error.request_id,
        )

    def takes_newer_limit(self, request: CompletionRequest) -> bool:
        """Whether the token limit is called max_completion_tokens."""
        return self.vendor(request).newer_limit or is_reasoning(request.endpoint.deployment)

    def _options(self, request: CompletionRequest) -> list[tuple[str, Any]]:
        limit = "max_completion_tokens" if self.takes_newer_limit(request) else "max_tokens"
        warm = not is_reasoning(request.endpoint.deployment)
        options = [("temperature", request.temperature if warm else None), (limit, request.max_tokens)]
        return options if request.chat is not None else [*options, ("response_format", self._response_format(request))]

    def _is_left_out(self, request: CompletionRequest, name: str) -> bool:
        return (*_place(request), name) in self._unwanted and self._is_ours(request, name)

    def _is_ours(self, request: CompletionRequest, name: str) -> bool:
        """Whether nobody misses it if it is left out, or it has another name. In a chat the client may miss it."""
        if request.chat is None or name == "stream_options":
            return True
        if name not in _OTHER_LIMIT:
            return False
        asked = any(request.chat.get(limit) is not None for limit in _OTHER_LIMIT)
        return not asked or (*_place(request), _OTHER_LIMIT[name]) not in self._unwanted

    def _response_format(self, request: CompletionRequest) -> JsonObject | None:
        wanted = request.response_format
        if isinstance(wanted, dict):
            if not self.vendor(request).json_schema:
                return None
            return {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted["schema"]}}
        asked_for = wanted == "json" and self.vendor(request).json_mode and _speaks_of_json(request)
        return {"type": "json_object"} if asked_for else None

    def _leave_out(self, options: JsonObject, name: str, place: tuple[str, str]) -> None:
        value, other = options.pop(name), _OTHER_LIMIT.get(name)
        if other is not None and (*place, other) not in self._unwanted:
            options[other] = value


class _ChunkFold:
    """Adds chat.completion.chunks up."""

    def __init__(self) -> None:
        self.ended = False
        self._refusal = ""
        self._reason: str | None = None
        self._usage: JsonObject = {}

    def feed(self, event: JsonObject) -> str:
        self._usage = event.get("usage") or self._usage
        if not event["choices"]:
            return ""
        choice = event["choices"][0]
        delta = choice.get("delta") or {}
        self._refusal += delta.get("refusal") or ""
        self._reason = choice.get("finish_reason") or self._reason
        self.ended = self._reason is not None
        return content_text(delta.get("content"))

    def document(self, text: str) -> JsonObject:
        message = {"content": text, "refusal": self._refusal or None}
        return {"choices": [{"message": message, "finish_reason": self._reason}], "usage": self._usage}


def _speaks_of_json(request: CompletionRequest) -> bool:
    texts = (request.system, request.user, *(turn.text for turn in request.turns))
    return any("json" in text.lower() for text in texts)


def is_reasoning(deployment: str) -> bool:
    """By the model's name, with or without a vendor's prefix as gateways have it."""
    return _REASONING.match(deployment.rsplit("/", 1)[-1]) is not None


def base_url(endpoint: str) -> str:
    """What the SDK takes: without the path that it adds itself."""
    return endpoint.strip().rstrip("/").removesuffix("/chat/completions")


def _place(request: CompletionRequest) -> tuple[str, str]:
    return request.endpoint.base_url, request.endpoint.deployment
