"""Answers in the shape of OpenAI's chat completions. Source: openai/openai-openapi openapi.yaml 2.3.0."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from engine.llm import Completion, JsonObject, TransientProviderError, Usage

_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_BROKEN_OFF = frozenset({"error", "insufficient_system_resource"})


def answer_body(answer_id: str, model: str, choices: Sequence[JsonObject], usage: Usage, now: datetime) -> JsonObject:
    """A whole answer. `answer_id` is the vendor's or the attempt's."""
    return {
        "id": f"chatcmpl-{answer_id}",
        "object": "chat.completion",
        "created": int(now.timestamp()),
        "model": model,
        "choices": list(choices),
        "usage": usage_shape(usage),
    }


def choice(
    index: int,
    text: str | None,
    reason: str | None,
    *,
    tool_calls: Sequence[JsonObject] = (),
    logprobs: JsonObject | None = None,
) -> JsonObject:
    """One of an answer's choices; a text that is empty beside calls of tools is none."""
    message: JsonObject = {"role": "assistant", "content": text or None if tool_calls else text, "refusal": None}
    if tool_calls:
        message["tool_calls"] = list(tool_calls)
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason}


def tool_call(call_id: str, name: str, arguments: Any) -> JsonObject:
    """`arguments` as JSON, which OpenAI has as a text."""
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": orjson.dumps(arguments).decode()},
    }


def usage_shape(usage: Usage) -> JsonObject:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def usage_of(usage: JsonObject) -> Usage:
    """DeepSeek has its own name for cached input; xAI counts reasoning beside the output, which its total shows."""
    given, answered = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    cached = count((usage.get("prompt_tokens_details") or {}).get("cached_tokens"))
    reasoning = count((usage.get("completion_tokens_details") or {}).get("reasoning_tokens"))
    beside = reasoning and count(usage.get("total_tokens")) == given + answered + reasoning
    return Usage(
        input_tokens=given,
        output_tokens=answered + reasoning if beside else answered,
        cached_input_tokens=cached or count(usage.get("prompt_cache_hit_tokens")),
        reasoning_tokens=reasoning,
    )


def count(value: Any) -> int:
    """A number of tokens, 0 where the vendor told none."""
    return int(value) if value else 0


def content_text(content: Any) -> str:
    """A message's text: plain, or in parts, of which thoughts do not belong to the answer."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] == "text")
    return content or ""


def chat_completion(body: JsonObject) -> Completion:
    """The completion in an answer of this shape. A refusal, a filter and a limit are answers too.

    Raises TransientProviderError for one without a choice, or that the vendor could not end.
    """
    usage = usage_of(body.get("usage") or {})
    if not body["choices"]:
        raise TransientProviderError("the answer holds no completion", usage=usage)
    first = body["choices"][0]
    text, reason = content_text(first["message"].get("content")), first.get("finish_reason")
    if reason in _BROKEN_OFF:
        raise TransientProviderError(f"the vendor broke the answer off ({reason})", raw=text, usage=usage)
    return Completion(text=text, usage=usage, finish_reason=reason, body=body)


def embedding_body(vectors: Sequence[Any], model: str, usage: Usage) -> JsonObject:
    """An answer of OpenAI's embeddings; a vector is a list of numbers, or base64."""
    data = [{"object": "embedding", "index": index, "embedding": each} for index, each in enumerate(vectors)]
    tokens = {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens}
    return {"object": "list", "data": data, "model": model, "usage": tokens}


def wrapped(completion: Completion, model: str, answer_id: str, now: datetime) -> JsonObject:
    """The body around an answer that has none, as a plug-in gives it."""
    return answer_body(answer_id, model, [choice(0, completion.text, ending(completion))], completion.usage, now)


def ending(completion: Completion) -> str:
    """The finish reason in OpenAI's words."""
    reason = completion.finish_reason
    return reason if reason is not None and reason in _REASONS else "stop"
