"""Google's Gemini API by google-genai. No header carries an attempt's id."""

import re
from typing import TYPE_CHECKING, Any, ClassVar

from yarl import URL

from engine.llm import Completion, CompletionRequest, JsonObject, Turn, UnusableAnswer, Usage
from llm_workers.providers.events import Fold
from llm_workers.providers.http import HttpProvider, broken_off, count, cut_off, filtered, nothing_said
from llm_workers.providers.rehearsal import Rehearsal, rehearse

if TYPE_CHECKING:
    import httpx2

_ADDRESS = "https://generativelanguage.googleapis.com"
_VERSION = re.compile(r"v\d+\w*")
_ROLES = {"user": "user", "assistant": "model"}
# google.genai.types.FinishReason says what each of them means.
_FILTERED = frozenset(
    {
        "BLOCKLIST",
        "ESCALATION",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "IMAGE_SAFETY",
        "LANGUAGE",
        "MODEL_ARMOR",
        "PROHIBITED_CONTENT",
        "RECITATION",
        "SAFETY",
        "SPII",
    }
)
_BROKEN_OFF = frozenset({"MALFORMED_RESPONSE"})
_CUT_OFF = frozenset({"MAX_TOKENS", "CONTINUATION"})
_GOOD_ENDS = frozenset({None, "STOP", "FINISH_REASON_UNSPECIFIED"})
# The SDK's names for what the wire calls otherwise.
_ARGUMENTS = {
    "temperature": "temperature",
    "maxOutputTokens": "max_output_tokens",
    "responseMimeType": "response_mime_type",
    "responseJsonSchema": "response_json_schema",
}


class GeminiProvider(HttpProvider):
    sdk = "Gemini"
    key_variable: ClassVar[str | None] = "GEMINI_API_KEY"

    def rehearse(self, request: CompletionRequest) -> Rehearsal:
        from google import genai  # noqa: PLC0415 - half a second to import, and only where some model needs it
        from google.genai import types  # noqa: PLC0415

        settings = {_ARGUMENTS[name]: value for name, value in self.body(request)["generationConfig"].items()}
        version = request.endpoint.api_version

        def call(client: "httpx2.Client") -> object:
            options = types.HttpOptions(
                base_url=base_url(request.endpoint.base_url) or _ADDRESS,
                api_version=version if _VERSION.fullmatch(version) else None,
                httpx_client=client,
            )
            sdk = genai.Client(api_key=request.endpoint.key, vertexai=False, http_options=options)
            config = types.GenerateContentConfig(system_instruction=request.system or None, **settings)
            contents: Any = _said(request)
            return sdk.models.generate_content(model=request.endpoint.deployment, contents=contents, config=config)

        return rehearse(call)

    def body(self, request: CompletionRequest) -> JsonObject:
        wanted = request.response_format
        settings: dict[str, Any] = {
            "temperature": request.temperature,
            "maxOutputTokens": request.max_tokens,
            "responseMimeType": None if wanted == "text" else "application/json",
            "responseJsonSchema": wanted["schema"] if isinstance(wanted, dict) else None,
        }
        body: JsonObject = {
            "contents": _said(request),
            "generationConfig": {name: value for name, value in settings.items() if value is not None},
        }
        if request.system:
            body["systemInstruction"] = {"parts": [{"text": request.system}], "role": "user"}
        return body

    def stream_body(self, request: CompletionRequest) -> JsonObject:
        return self.body(request)

    def stream_url(self, url: URL) -> URL:
        return url.with_name(url.name.replace(":generateContent", ":streamGenerateContent")).with_query(alt="sse")

    def fold(self) -> Fold:
        return _PartFold()

    def read(self, document: JsonObject, request: CompletionRequest) -> Completion:
        usage = usage_of(document.get("usageMetadata") or {})
        blocked = (document.get("promptFeedback") or {}).get("blockReason")
        if blocked:
            raise filtered(f"the prompt: {blocked}", "", usage)
        if not document.get("candidates"):
            raise nothing_said(usage)
        candidate = document["candidates"][0]
        text, reason = _text(candidate), candidate.get("finishReason")
        if reason in _FILTERED:
            raise filtered(reason, text, usage)
        if reason in _BROKEN_OFF:
            raise broken_off(reason, text, usage)
        if reason in _CUT_OFF and request.response_format != "text":
            raise cut_off(text, usage)
        if reason not in _GOOD_ENDS | _CUT_OFF:
            raise UnusableAnswer(f"the vendor ended the answer ({reason})", raw=text or None, usage=usage)
        return Completion(text=text, usage=usage, finish_reason=reason)


class _PartFold:
    """Adds partial answers up; the counts in each are of all that came before."""

    def __init__(self) -> None:
        self.ended = False
        self._whole: JsonObject = {}
        self._reason: str | None = None

    def feed(self, event: JsonObject) -> str:
        told = {name: event[name] for name in ("usageMetadata", "promptFeedback") if event.get(name)}
        self._whole = {**self._whole, **told}
        if not event.get("candidates"):
            self.ended = self.ended or "promptFeedback" in told
            return ""
        candidate = event["candidates"][0]
        self._reason = candidate.get("finishReason") or self._reason
        self.ended = self._reason is not None
        return _text(candidate)

    def document(self, text: str) -> JsonObject:
        candidate = {"content": {"parts": [{"text": text}]}, "finishReason": self._reason}
        return {**self._whole, "candidates": [candidate]}


def _said(request: CompletionRequest) -> list[JsonObject]:
    turns = (Turn("user", request.user), *request.turns)
    return [{"parts": [{"text": turn.text}], "role": _ROLES[turn.role]} for turn in turns]


def _text(candidate: JsonObject) -> str:
    """The candidate's text without its thoughts."""
    parts = (candidate.get("content") or {}).get("parts") or ()
    return "".join(part.get("text", "") for part in parts if not part.get("thought"))


def base_url(endpoint: str) -> str:
    """What the SDK takes: without the API version, which it adds itself."""
    parts = endpoint.strip().rstrip("/").split("/")
    return "/".join(parts[:-1] if _VERSION.fullmatch(parts[-1]) else parts)


def usage_of(usage: JsonObject) -> Usage:
    """Google counts thoughts beside the candidates' tokens, and bills both as output."""
    thoughts = count(usage.get("thoughtsTokenCount"))
    return Usage(
        input_tokens=count(usage.get("promptTokenCount")),
        output_tokens=count(usage.get("candidatesTokenCount")) + thoughts,
        cached_input_tokens=count(usage.get("cachedContentTokenCount")),
        reasoning_tokens=thoughts,
    )
