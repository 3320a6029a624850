"""Anthropic's Messages API.

The current SDK has no temperature argument, so none is sent. `max_tokens` is required; without a limit of the model's
it is 4096. A JSON schema goes into output_config; there is no plain JSON mode. No header carries an attempt's id.
"""

from typing import TYPE_CHECKING, ClassVar

from engine.llm import Completion, CompletionRequest, JsonObject, Usage
from llm_workers.providers.http import HttpProvider, count, nothing_said, stopped
from llm_workers.providers.rehearsal import Rehearsal, rehearse

if TYPE_CHECKING:
    import httpx2

_DEFAULT_LIMIT = 4096
_CUT_OFF = frozenset({"max_tokens", "model_context_window_exceeded"})
# Without one the SDK refuses large limits, because its own timeout would be too short for them.
_SDK_TIMEOUT_SECONDS = 600.0


class AnthropicProvider(HttpProvider):
    sdk: ClassVar[str] = "Anthropic"

    def rehearse(self, request: CompletionRequest) -> Rehearsal:
        import anthropic  # noqa: PLC0415 - a second to import, and only where some model needs it

        def call(client: "httpx2.Client") -> object:
            sdk = anthropic.Anthropic(
                api_key=request.endpoint.key,
                base_url=base_url(request.endpoint.base_url) or None,
                max_retries=0,
                http_client=client,
            )
            return sdk.messages.with_raw_response.create(**self.body(request), timeout=_SDK_TIMEOUT_SECONDS)

        return rehearse(call)

    def body(self, request: CompletionRequest) -> JsonObject:
        body: JsonObject = {
            "model": request.endpoint.deployment,
            "max_tokens": request.max_tokens or _DEFAULT_LIMIT,
            "messages": [{"role": "user", "content": request.user}],
        }
        if request.system:
            body["system"] = request.system
        if isinstance(request.response_format, dict):
            body["output_config"] = {"format": {"type": "json_schema", "schema": request.response_format["schema"]}}
        return body

    def read(self, document: JsonObject, request: CompletionRequest) -> Completion:
        usage = usage_of(document.get("usage") or {})
        blocks = [block["text"] for block in document["content"] if block["type"] == "text"]
        text, reason = "".join(blocks), document.get("stop_reason")
        if reason == "refusal":
            raise stopped("the model refused", text, usage)
        if reason in _CUT_OFF and request.response_format != "text":
            raise stopped("it was cut off at the token limit", text, usage)
        if not blocks:
            raise nothing_said(usage)
        return Completion(text=text, usage=usage, finish_reason=reason)


def base_url(endpoint: str) -> str:
    """What the SDK takes: without the path that it adds itself."""
    return endpoint.strip().rstrip("/").removesuffix("/messages").removesuffix("/v1")


def usage_of(usage: JsonObject) -> Usage:
    """Anthropic counts cached input beside the input, not in it."""
    cached = count(usage.get("cache_read_input_tokens"))
    return Usage(
        input_tokens=count(usage.get("input_tokens")) + count(usage.get("cache_creation_input_tokens")) + cached,
        output_tokens=count(usage.get("output_tokens")),
        cached_input_tokens=cached,
        reasoning_tokens=count((usage.get("output_tokens_details") or {}).get("thinking_tokens")),
    )
