"""What clients ask in OpenAI's shape, chat completions and embeddings: pure functions over their bodies."""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from engine.llm import JsonObject, ResponseFormat, Turn, UnsupportedParameter

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"

SYSTEM_ROLES = frozenset({"system", "developer"})
_PART = 3000
"""Characters that a picture or a file counts as, whose real tokens only the vendor knows: about a thousand tokens."""
_TOKEN = 3
"""Characters that a token counts as, where a client sends tokens instead of a text."""


def messages_of(chat: JsonObject) -> list[JsonObject]:
    """Raises UnsupportedParameter where there are none, or one is no object with a role."""
    messages = chat.get("messages")
    if not isinstance(messages, list) or not messages:
        raise UnsupportedParameter("messages", "a list of at least one message is needed")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise UnsupportedParameter(f"messages[{number}]", "not an object with a role")
    return messages


def number_in(chat: JsonObject, name: str) -> float | None:
    """Raises UnsupportedParameter where it is no number."""
    value = chat.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise UnsupportedParameter(name, "not a number")
    return value


def token_limit_in(chat: JsonObject) -> int | None:
    """The newer name goes before the older. Raises UnsupportedParameter where it is no positive whole number."""
    for name in ("max_completion_tokens", "max_tokens"):
        value = chat.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise UnsupportedParameter(name, "not a positive whole number")
        if value is not None:
            return int(value)
    return None


def choices_in(chat: JsonObject | None) -> int:
    """How many answers are asked for; 1 for what is no number of answers."""
    count = 1 if chat is None else chat.get("n")
    return count if isinstance(count, int) and 1 <= count <= 1000 else 1


def texts_in(content: Any) -> Iterator[str]:
    """The texts of a message's content, which may be one or a list of parts."""
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield part["text"]


def conversation(chat: JsonObject) -> tuple[str, str, tuple[Turn, ...]]:
    """System text, the user's first and what followed, for a provider that knows no more than that."""
    system: list[str] = []
    said: list[Turn] = []
    for message in messages_of(chat):
        text = "\n".join(texts_in(message.get("content")))
        if message["role"] in SYSTEM_ROLES:
            system.append(text)
        elif text.strip():
            said.append(Turn("assistant" if message["role"] == "assistant" else "user", text))
    first = said[0].text if said and said[0].role == "user" else ""
    return "\n\n".join(system), first, tuple(said[1:] if first else said)


def format_in(chat: JsonObject) -> ResponseFormat:
    """The answer's format as jobs name it."""
    wanted = chat.get("response_format") or {}
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    schema = wanted.get("json_schema") if kind == "json_schema" else None
    if isinstance(schema, dict) and isinstance(schema.get("schema"), dict):
        return {"type": "json_schema", "schema": schema["schema"]}
    return "json" if kind == "json_object" else "text"


_BEYOND_TEXT = ("tools", "functions", "audio", "logprobs", "prediction")


def refuse_beyond_text(chat: JsonObject) -> None:
    """Raises UnsupportedParameter for a request that more than texts would have to answer."""
    for name in _BEYOND_TEXT:
        if chat.get(name):
            raise UnsupportedParameter(name, "this model's provider answers texts only")
    if chat.get("n") not in (None, 1):
        raise UnsupportedParameter("n", "this model's provider gives one answer")
    for number, message in enumerate(messages_of(chat)):
        content = message.get("content")
        parts = content if isinstance(content, list) else ()
        if any(not isinstance(part, dict) or part.get("type") != "text" for part in parts):
            raise UnsupportedParameter(f"messages[{number}].content", "this model's provider reads texts only")


def characters_in_chat(chat: JsonObject) -> int:
    """How much there is to read in it, as characters."""
    messages = chat.get("messages")
    total = sum(_weight(message) for message in messages) if isinstance(messages, list) else 0
    settings = [chat[name] for name in ("tools", "functions", "response_format") if chat.get(name)]
    return total + (len(orjson.dumps(settings, option=orjson.OPT_NON_STR_KEYS)) if settings else 0)


def characters_in_input(embeds: JsonObject) -> int:
    """How much is to be embedded, as characters."""
    return sum(len(each) if isinstance(each, str) else _TOKEN * len(each) for each in inputs_of(embeds))


def inputs_of(embeds: JsonObject) -> Sequence[str | list[int]]:
    """What is to be embedded, each a text or tokens. Raises UnsupportedParameter where it is neither."""
    given: Any = embeds.get("input")
    if isinstance(given, str) or _is_tokens(given):
        return [given]
    if isinstance(given, list) and given and all(isinstance(each, str) or _is_tokens(each) for each in given):
        return list(given)
    raise UnsupportedParameter("input", "not a text, a list of texts, or one or more lists of tokens")


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is int for each in value)


def _weight(message: Any) -> int:
    if not isinstance(message, dict):
        return 0
    content = message.get("content")
    parts = content if isinstance(content, list) else ()
    others = sum(1 for part in parts if isinstance(part, dict) and part.get("type") != "text")
    calls = message.get("tool_calls")
    called = len(orjson.dumps(calls, option=orjson.OPT_NON_STR_KEYS)) if calls else 0
    return sum(map(len, texts_in(content))) + _PART * others + called
