"""What clients ask in the shape of Anthropic's Messages API: pure functions over their bodies and events.

Source: the types of anthropics/anthropic-sdk-python 2.14. Whatever is not named here is the vendor's to judge.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson

from engine.llm import JsonObject, UnsupportedParameter
from llm_workers.chats import messages_of, texts_in

MESSAGES = "/v1/messages"

_BLOCK = 3000
"""Characters that a picture or a document counts as, whose real tokens only the vendor knows."""
_LONG = ("tools", "output_config", "output_format")
_SAID: Mapping[str, str] = MappingProxyType(
    {"text_delta": "text", "input_json_delta": "partial_json", "thinking_delta": "thinking"}
)
"""Where a delta has what the model said, by its type."""


def limit_in(body: JsonObject) -> int:
    """Raises UnsupportedParameter where it is no positive whole number."""
    limit = body.get("max_tokens")
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise UnsupportedParameter("max_tokens", "not a positive whole number")
    return limit


def characters_in_messages(body: JsonObject) -> int:
    """How much there is to read in it, as characters."""
    total = _weight_of_all(body.get("system"))
    total += sum(_weight_of_all(message.get("content")) for message in messages_of(body))
    settings = [body[name] for name in _LONG if body.get(name)]
    return total + (_size(settings) if settings else 0)


def text_in_event(event: JsonObject) -> str:
    """What the event adds to the answer's text."""
    delta = event.get("delta") or {}
    return str(delta.get("text") or "") if delta.get("type") == "text_delta" else ""


def size_of_event(event: JsonObject) -> int:
    """How many characters the model said in it, thoughts and arguments of tools included."""
    delta = event.get("delta") or {}
    return len(str(delta.get(_SAID.get(delta.get("type") or "", "")) or ""))


def _weight_of_all(content: Any) -> int:
    """Of a content, which is a text or blocks: results of tools and documents may have blocks of their own."""
    blocks = content if isinstance(content, list) else ()
    return sum(map(len, texts_in(content))) + sum(map(_weight, blocks))


def _weight(block: Any) -> int:
    if not isinstance(block, dict) or block.get("type") == "text":
        return 0
    if block.get("type") == "tool_result":
        return _weight_of_all(block.get("content"))
    if block.get("type") not in ("image", "document"):
        return _size(block)
    source = block.get("source")
    source = source if isinstance(source, dict) else {}
    if source.get("type") == "content":
        return _weight_of_all(source.get("content"))
    return len(str(source.get("data") or "")) if source.get("type") == "text" else _BLOCK


def _size(value: object) -> int:
    return len(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))
