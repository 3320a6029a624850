"""OpenAI, and every endpoint that speaks its chat completions, by the model's base URL.

What differs between endpoints is decided here:

- `max_completion_tokens` goes to api.openai.com, to Azure and to reasoning models, `max_tokens` to all others: OpenAI
  deprecates the latter, most compatible servers know no other.
- Reasoning models get no temperature. Should an endpoint refuse a parameter nevertheless, it is left out from then on
  and the call fails as transient, so that the next attempt goes through.
- JSON mode is asked for where it is known to work, and only when the prompts speak of JSON, without which OpenAI
  refuses it. A JSON schema is sent everywhere but where it is known to be refused.
"""

import re
from typing import TYPE_CHECKING, Any, ClassVar

from yarl import URL

from engine.llm import Completion, CompletionRequest, JsonObject, ProviderError, TransientProviderError, Usage
from llm_workers.providers.faults import document_of
from llm_workers.providers.http import HttpProvider, count, nothing_said, stopped
from llm_workers.providers.rehearsal import Rehearsal, rehearse

if TYPE_CHECKING:
    import httpx2

    from llm_workers.transport import HttpAnswer, Transport

_REASONING = re.compile(r"(o\d|gpt-5)(?!.*chat)", re.IGNORECASE)
_OPENAI_HOST = "api.openai.com"
_ADDRESS = f"https://{_OPENAI_HOST}/v1"
_JSON_MODE_HOSTS = frozenset(
    {_OPENAI_HOST, "api.mistral.ai", "api.groq.com", "api.deepseek.com", "api.x.ai", "api.together.xyz"}
    | {"api.fireworks.ai", "openrouter.ai"}
)
_NO_SCHEMA_HOSTS = frozenset({"api.deepseek.com"})
_REFUSALS = frozenset({"unsupported_value", "unsupported_parameter", "unknown_parameter"})
_OPTIONAL = frozenset({"temperature", "max_tokens", "max_completion_tokens", "response_format"})


class OpenAiProvider(HttpProvider):
    sdk: ClassVar[str] = "OpenAI"
    attempt_header: ClassVar[str | None] = "X-Client-Request-Id"
    json_mode: ClassVar[bool | None] = None
    """Whether it is known to work; None: known by host."""

    def __init__(self, transport: "Transport") -> None:
        super().__init__(transport)
        self._unwanted: set[tuple[str, str, str]] = set()

    def rehearse(self, request: CompletionRequest) -> Rehearsal:
        import openai  # noqa: PLC0415 - half a second to import, and only where some model needs it

        def call(client: "httpx2.Client") -> object:
            sdk = openai.OpenAI(
                api_key=request.endpoint.key,
                base_url=base_url(request.endpoint.base_url) or _ADDRESS,
                max_retries=0,
                http_client=client,
            )
            return sdk.chat.completions.with_raw_response.create(**self.body(request))

        return rehearse(call)

    def body(self, request: CompletionRequest) -> JsonObject:
        messages = [{"role": "user", "content": request.user}]
        if request.system:
            messages.insert(0, {"role": "system", "content": request.system})
        options = {name: value for name, value in self._options(request) if value is not None}
        if self._unwanted:
            for _, _, name in self._unwanted & {(*_place(request), name) for name in options}:
                self._leave_out(options, name)
        return {"model": request.endpoint.deployment, "messages": messages, **options}

    def read(self, document: JsonObject, request: CompletionRequest) -> Completion:
        usage = usage_of(document.get("usage") or {})
        if not document["choices"]:
            raise nothing_said(usage)
        choice = document["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        text = message.get("content") or ""
        if message.get("refusal"):
            raise stopped("the model refused", message["refusal"], usage)
        if reason == "content_filter":
            raise stopped("the vendor's content filter stopped it", text, usage)
        if reason == "length" and request.response_format != "text":
            raise stopped("it was cut off at the token limit", text, usage)
        return Completion(text=text, usage=usage, finish_reason=reason)

    def refusal(self, answer: "HttpAnswer", request: CompletionRequest) -> ProviderError:
        error = super().refusal(answer, request)
        parameter = _unwanted_parameter(answer) if answer.status == 400 else None
        if parameter is None or (*_place(request), parameter) in self._unwanted:
            return error
        self._unwanted.add((*_place(request), parameter))
        return TransientProviderError(
            f"{self.sdk}: {request.endpoint.deployment} takes no {parameter}; it is left out from now on", status=400
        )

    def takes_newer_limit(self, request: CompletionRequest) -> bool:
        """Whether the token limit is called max_completion_tokens."""
        return _host(request) in (_OPENAI_HOST, None) or is_reasoning(request.endpoint.deployment)

    def takes_json_mode(self, request: CompletionRequest) -> bool:
        if self.json_mode is not None:
            return self.json_mode
        return _host(request) in _JSON_MODE_HOSTS or _host(request) is None

    def _options(self, request: CompletionRequest) -> list[tuple[str, Any]]:
        limit = "max_completion_tokens" if self.takes_newer_limit(request) else "max_tokens"
        warm = not is_reasoning(request.endpoint.deployment)
        return [
            ("temperature", request.temperature if warm else None),
            (limit, request.max_tokens),
            ("response_format", self._response_format(request)),
        ]

    def _response_format(self, request: CompletionRequest) -> JsonObject | None:
        wanted = request.response_format
        if isinstance(wanted, dict):
            if _host(request) in _NO_SCHEMA_HOSTS:
                return None
            return {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted["schema"]}}
        speaks_of_json = "json" in request.system.lower() or "json" in request.user.lower()
        return (
            {"type": "json_object"} if wanted == "json" and self.takes_json_mode(request) and speaks_of_json else None
        )

    @staticmethod
    def _leave_out(options: JsonObject, name: str) -> None:
        value = options.pop(name)
        if name == "max_tokens":
            options["max_completion_tokens"] = value


def is_reasoning(deployment: str) -> bool:
    """By the model's name, with or without a vendor's prefix as gateways have it."""
    return _REASONING.match(deployment.rsplit("/", 1)[-1]) is not None


def base_url(endpoint: str) -> str:
    """What the SDK takes: without the path that it adds itself."""
    return endpoint.strip().rstrip("/").removesuffix("/chat/completions")


def usage_of(usage: JsonObject) -> Usage:
    return Usage(
        input_tokens=count(usage.get("prompt_tokens")),
        output_tokens=count(usage.get("completion_tokens")),
        cached_input_tokens=count((usage.get("prompt_tokens_details") or {}).get("cached_tokens")),
        reasoning_tokens=count((usage.get("completion_tokens_details") or {}).get("reasoning_tokens")),
    )


def _host(request: CompletionRequest) -> str | None:
    return URL(request.endpoint.base_url).host if request.endpoint.base_url else None


def _place(request: CompletionRequest) -> tuple[str, str]:
    return request.endpoint.base_url, request.endpoint.deployment


def _unwanted_parameter(answer: "HttpAnswer") -> str | None:
    document = document_of(answer.body)
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict) or error.get("code") not in _REFUSALS:
        return None
    return error["param"] if error.get("param") in _OPTIONAL else None
