"""Chats and embeddings for endpoints that speak OpenAI's format: they go through as the client sent them."""

from datetime import datetime

from yarl import URL

from engine.llm import Completion, CompletionRequest, JsonObject, Usage
from llm_workers.providers.chat_answers import content_text, count, usage_of, usage_shape
from llm_workers.providers.http import Embedding

_OURS = frozenset({"model", "stream", "stream_options", "temperature", "max_tokens", "max_completion_tokens"})
"""What the request itself says, or we decide."""
_REASONS = {"model_length": "length"}


def passed_on(chat: JsonObject) -> JsonObject:
    """What goes to the vendor as it came, fields that nobody has heard of included."""
    return {name: value for name, value in chat.items() if name not in _OURS}


def completed(document: JsonObject, request: CompletionRequest, now: datetime) -> JsonObject:
    """A compatible server's answer, with what it left out of OpenAI's shape."""
    usage = _usage(document.get("usage") or usage_shape(Usage()))
    about = {
        "id": f"chatcmpl-{request.attempt_id}",
        "created": int(now.timestamp()),
        "model": request.endpoint.deployment,
    }
    told = {name: document.get(name) or value for name, value in about.items()}
    choices = [_choice(number, each) for number, each in enumerate(document["choices"])]
    return {**document, **told, "object": "chat.completion", "choices": choices, "usage": usage}


def _choice(number: int, choice: JsonObject) -> JsonObject:
    message = {"role": "assistant", "content": None, "refusal": None, **choice["message"]}
    if isinstance(message["content"], list):
        message["content"] = content_text(message["content"])
    return {"index": number, "logprobs": None, **_ended(choice), "message": message}


def chunk(event: JsonObject) -> JsonObject:
    """A compatible server's chunk, with endings and counts as OpenAI has them."""
    choices = [_ended(each) for each in event["choices"]]
    usage = event.get("usage")
    return {**event, "choices": choices, "usage": _usage(usage) if usage else None}


def _ended(choice: JsonObject) -> JsonObject:
    reason = choice.get("finish_reason")
    return {**choice, "finish_reason": _REASONS.get(reason or "", reason)}


def _usage(told: JsonObject) -> JsonObject:
    """Where a vendor counts in its own way, its fields stay and OpenAI's say the same."""
    shape = usage_shape(usage_of(told))
    details = {name: {**(told.get(name) or {}), **value} for name, value in shape.items() if name.endswith("details")}
    return {**told, **shape, **details}


def embedding_of(request: CompletionRequest) -> Embedding:
    body = {**(request.embeds or {}), "model": request.endpoint.deployment}
    return Embedding(body, _embeddings_url, _embedded)


def _embeddings_url(url: URL) -> URL:
    path = url.raw_path.removesuffix("/chat/completions")
    return url.with_path(f"{path}/embeddings", encoded=True, keep_query=True)


def _embedded(document: JsonObject, request: CompletionRequest) -> Completion:
    told = document.get("usage") or {}
    usage = Usage(input_tokens=count(told.get("prompt_tokens")))
    whole = {
        "object": "list",
        "model": request.endpoint.deployment,
        "usage": {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens},
    }
    return Completion(text="", usage=usage, body={**whole, **document, "data": list(document["data"])})
