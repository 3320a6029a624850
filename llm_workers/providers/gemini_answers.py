"""Gemini's answers in OpenAI's shape: chats, whole and streamed, and embeddings."""

import base64
import struct
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from yarl import URL

from engine.llm import (
    Completion,
    CompletionRequest,
    JsonObject,
    TransientProviderError,
    UnsupportedParameter,
    UnusableAnswer,
    Usage,
)
from llm_workers.chats import inputs_of
from llm_workers.providers.chat_answers import answer_body, choice, embedding_body, tool_call, usage_shape
from llm_workers.providers.chat_parts import whole_number
from llm_workers.providers.gemini_endings import BROKEN_OFF, CUT_OFF, FILTERED, GOOD_ENDS, usage_of
from llm_workers.providers.http import Embedding

_TAKEN_TO_EMBED = frozenset({"model", "input", "dimensions", "encoding_format", "user"})


def chat_answer(document: JsonObject, request: CompletionRequest, now: datetime) -> JsonObject:
    """A whole answer. Raises TransientProviderError and UnusableAnswer where Gemini could not end it."""
    usage = usage_of(document.get("usageMetadata") or {})
    answer_id = str(document.get("responseId") or request.attempt_id)
    choices = [_choice(each, answer_id, usage) for each in document.get("candidates") or ()]
    if not choices and _is_blocked(document):
        choices = [choice(0, "", "content_filter")]
    return answer_body(answer_id, document.get("modelVersion") or request.endpoint.deployment, choices, usage, now)


class Events:
    """Partial answers as OpenAI's chunks; the counts in each are of all that came before."""

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}

    def __call__(self, event: JsonObject) -> JsonObject:
        usage = usage_of(event.get("usageMetadata") or {})
        answer_id = str(event.get("responseId") or "")
        choices = [self._choice(each, answer_id, usage) for each in event.get("candidates") or ()]
        if not choices and _is_blocked(event):
            choices = [{"index": 0, "delta": {}, "finish_reason": "content_filter"}]
        told = {"usage": usage_shape(usage)} if event.get("usageMetadata") else {}
        return {"id": f"chatcmpl-{answer_id}", "model": event.get("modelVersion"), "choices": choices, **told}

    def _choice(self, candidate: JsonObject, answer_id: str, usage: Usage) -> JsonObject:
        index = candidate.get("index", 0)
        known = self._calls.get(index, 0)
        calls = list(_calls(candidate, answer_id, known))
        self._calls[index] = known + len(calls)
        numbered = [{"index": known + place, **call} for place, call in enumerate(calls)]
        delta = {"content": text_of(candidate), "tool_calls": numbered}
        reason = candidate.get("finishReason")
        ending = None if reason is None else _reason(reason, self._calls[index] > 0, usage)
        return {"index": index, "delta": delta, "logprobs": _logprobs(candidate), "finish_reason": ending}


def text_of(candidate: JsonObject) -> str:
    """The candidate's text without its thoughts."""
    return "".join(part.get("text", "") for part in _parts(candidate) if not part.get("thought"))


def _choice(candidate: JsonObject, answer_id: str, usage: Usage) -> JsonObject:
    calls = list(_calls(candidate, answer_id, 0))
    reason = _reason(candidate.get("finishReason"), bool(calls), usage)
    text = text_of(candidate)
    return choice(candidate.get("index", 0), text, reason, tool_calls=calls, logprobs=_logprobs(candidate))


def _parts(candidate: JsonObject) -> list[JsonObject]:
    return (candidate.get("content") or {}).get("parts") or []


def _is_blocked(document: JsonObject) -> bool:
    return bool((document.get("promptFeedback") or {}).get("blockReason"))


def _calls(candidate: JsonObject, answer_id: str, known: int) -> Iterator[JsonObject]:
    """The calls of tools in a candidate, of which so many are `known` already. Where they have no ids they get some."""
    called = (part for part in _parts(candidate) if part.get("functionCall"))
    for place, part in enumerate(called, known):
        function = part["functionCall"]
        call_id = function.get("id") or f"call_{answer_id}_{candidate.get('index', 0)}_{place}"
        call = tool_call(call_id, function["name"], function.get("args") or {})
        signature = part.get("thoughtSignature")
        yield {**call, "extra_content": {"google": {"thought_signature": signature}}} if signature else call


def _reason(reason: str | None, calls: bool, usage: Usage) -> str:
    if reason in FILTERED:
        return "content_filter"
    if reason in CUT_OFF:
        return "length"
    if reason in BROKEN_OFF:
        raise TransientProviderError(f"the vendor broke the answer off ({reason})", usage=usage)
    if reason not in GOOD_ENDS:
        raise UnusableAnswer(f"the vendor ended the answer ({reason})", usage=usage)
    return "tool_calls" if calls else "stop"


def _logprobs(candidate: JsonObject) -> JsonObject | None:
    result = candidate.get("logprobsResult")
    if not result:
        return None
    top = result.get("topCandidates") or []
    content = []
    for place, chosen in enumerate(result.get("chosenCandidates") or ()):
        others = top[place].get("candidates") or () if place < len(top) else ()
        content.append({**_token(chosen), "top_logprobs": [_token(other) for other in others]})
    return {"content": content, "refusal": None}


def _token(candidate: JsonObject) -> JsonObject:
    token = candidate.get("token") or ""
    return {"token": token, "logprob": candidate.get("logProbability") or 0.0, "bytes": list(token.encode())}


def embedding_of(request: CompletionRequest) -> Embedding:
    """Raises UnsupportedParameter for tokens, and for fields that Gemini has no counterpart of."""
    asked = request.embeds or {}
    for name, value in asked.items():
        if value is not None and name not in _TAKEN_TO_EMBED:
            raise UnsupportedParameter(name, "Gemini has nothing of the kind")
    if asked.get("encoding_format") not in (None, "float", "base64"):
        raise UnsupportedParameter("encoding_format", "neither float nor base64")
    if not all(isinstance(each, str) for each in inputs_of(asked)):
        raise UnsupportedParameter("input", "Gemini embeds texts, not tokens")
    size = whole_number(asked, "dimensions", 1)
    shared = {"model": f"models/{request.endpoint.deployment}"} | (
        {} if size is None else {"outputDimensionality": size}
    )
    requests = [{"content": {"parts": [{"text": each}], "role": "user"}, **shared} for each in inputs_of(asked)]
    return Embedding({"requests": requests}, _embedding_url, _embedded)


def _embedding_url(url: URL) -> URL:
    return url.with_name(url.name.replace(":generateContent", ":batchEmbedContents"))


def _embedded(document: JsonObject, request: CompletionRequest) -> Completion:
    """Numbers, or as OpenAI's base64: of floats of 32 bits, the least byte first."""
    vectors: list[Any] = [each["values"] for each in document["embeddings"]]
    if (request.embeds or {}).get("encoding_format") == "base64":
        vectors = [base64.b64encode(struct.pack(f"<{len(each)}f", *each)).decode() for each in vectors]
    usage = Usage(input_tokens=usage_of(document.get("usageMetadata") or {}).input_tokens)
    return Completion(text="", usage=usage, body=embedding_body(vectors, request.endpoint.deployment, usage))
