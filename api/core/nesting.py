"""Bodies that are stored as they came: no deeper than what stores, sends and shows them can write."""

from collections.abc import Iterable
from typing import Any

import orjson

from engine.errors import InvalidField
from engine.llm import JsonObject

_SURELY_FLAT = 200
"""JSON with so few brackets is not too deep, so that the usual body costs no second look. Writers take 254 levels."""

_AROUND = 6
"""Levels that answers put around a body."""

_NAMED_TO, _LONGEST = 3, 100
"""How far a name goes, to messages[2].content, and of how many characters it is."""


def stored_body(raw: bytes) -> JsonObject:
    """The object of a valid body. Raises InvalidField where it is nested too deeply, naming the field and its place."""
    body: JsonObject = orjson.loads(raw)
    if raw.count(b"[") + raw.count(b"{") > _SURELY_FLAT and _too_deep(body):
        raise InvalidField(_field(body), "is nested too deeply")
    return body


def _field(body: JsonObject) -> str:
    """What is too deep by itself, such as messages[2].content."""
    field, part = "", body
    for _ in range(_NAMED_TO):
        found = next((each for each in _parts(part) if _too_deep(each[1])), None)
        if found is None:
            break
        field, part = field + found[0], found[1]
    return field.removeprefix(".")[:_LONGEST] or "body"


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    """A value's own values by how they are named from it: fields, and the objects of a list."""
    if isinstance(value, dict):
        return ((f".{name}", each) for name, each in value.items())
    if isinstance(value, list):
        return ((f"[{place}]", each) for place, each in enumerate(value) if isinstance(each, dict))
    return ()


def _too_deep(value: Any) -> bool:
    for _ in range(_AROUND):
        value = [value]
    try:
        orjson.dumps(value)
    except TypeError:
        return True
    return False
