"""Google's Gemini API by google-genai. No header carries an attempt's id."""

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from yarl import URL

from engine.llm import Completion, CompletionRequest, JsonObject, Turn, UnusableAnswer
from llm_workers.providers.chat_chunks import Translation
from llm_workers.providers.events import Fold
from llm_workers.providers.gemini_answers import Events, chat_answer, embedding_of, text_of
from llm_workers.providers.gemini_chat import chat_body
from llm_workers.providers.gemini_endings import BROKEN_OFF, CUT_OFF, FILTERED, GOOD_ENDS, usage_of
from llm_workers.providers.http import Embedding, HttpProvider, broken_off, cut_off, filtered, nothing_said
from llm_workers.providers.rehearsal import Rehearsal, rehearse

if TYPE_CHECKING:
    import httpx2

_ADDRESS = "https://generativelanguage.googleapis.com"
_VERSION = re.compile(r"v\d+\w*")
_ROLES = {"user": "user", "assistant": "model"}


class GeminiProvider(HttpProvider):
    sdk = "Gemini"
    key_variable: ClassVar[str | None] = "GEMINI_API_KEY"

    def rehearse(self, request: CompletionRequest) -> Rehearsal:
        from google import genai  # noqa: PLC0415 - half a second to import, and only where some model needs it
        from google.genai import types  # noqa: PLC0415

        asked = self.body(request)
        about = {name: asked[name] for name in ("systemInstruction", "tools", "toolConfig") if name in asked}
        version = request.endpoint.api_version

        def call(client: "httpx2.Client") -> object:
            options = types.HttpOptions(
                base_url=base_url(request.endpoint.base_url) or _ADDRESS,
                api_version=version if _VERSION.fullmatch(version) else None,
                httpx_client=client,
            )
            sdk = genai.Client(api_key=request.endpoint.key, vertexai=False, http_options=options)
            config = types.GenerateContentConfig.model_validate({**asked["generationConfig"], **about})
            contents: Any = asked["contents"]
            return sdk.models.generate_content(model=request.endpoint.deployment, contents=contents, config=config)

        return rehearse(call)

    def body(self, request: CompletionRequest) -> JsonObject:
        if request.chat is not None:
            return chat_body(request.chat, request)
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

    def chat_answer(self, document: JsonObject, request: CompletionRequest, now: datetime) -> JsonObject:
        return chat_answer(document, request, now)

    def chat_translation(self) -> Translation:
        return Events()

    def embedding(self, request: CompletionRequest) -> Embedding:
        return embedding_of(request)

    def read(self, document: JsonObject, request: CompletionRequest) -> Completion:
        usage = usage_of(document.get("usageMetadata") or {})
        blocked = (document.get("promptFeedback") or {}).get("blockReason")
        if blocked:
            raise filtered(f"the prompt: {blocked}", "", usage)
        if not document.get("candidates"):
            raise nothing_said(usage)
        candidate = document["candidates"][0]
        text, reason = text_of(candidate), candidate.get("finishReason")
        if reason in FILTERED:
            raise filtered(reason, text, usage)
        if reason in BROKEN_OFF:
            raise broken_off(reason, text, usage)
        if reason in CUT_OFF and request.response_format != "text":
            raise cut_off(text, usage)
        if reason not in GOOD_ENDS | CUT_OFF:
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
        return text_of(candidate)

    def document(self, text: str) -> JsonObject:
        candidate = {"content": {"parts": [{"text": text}]}, "finishReason": self._reason}
        return {**self._whole, "candidates": [candidate]}


def _said(request: CompletionRequest) -> list[JsonObject]:
    turns = (Turn("user", request.user), *request.turns)
    return [{"parts": [{"text": turn.text}], "role": _ROLES[turn.role]} for turn in turns]


def base_url(endpoint: str) -> str:
    """What the SDK takes: without the API version, which it adds itself."""
    parts = endpoint.strip().rstrip("/").split("/")
    return "/".join(parts[:-1] if _VERSION.fullmatch(parts[-1]) else parts)
