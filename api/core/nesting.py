"""Bodies that are stored as they came: no deeper than what stores, sends and shows them can write."""

from collections.abc import Iterable
from typing import Any

import orjson

from engine.errors import InvalidField
from engine.llm import JsonObject
from utilities.json_depth import DEEPEST, may_be_too_deep, too_deep

_NAMED_TO, _LONGEST = 3, 100
"""How far a name goes, to messages[2].content, and of how many characters it is."""


def stored_body(raw: bytes) -> JsonObject:
    """The object of a valid body. Raises InvalidField where it is nested too deeply, naming the field and its place."""
    body: JsonObject = orjson.loads(raw)
    if may_be_too_deep(raw) and too_deep(body):
        raise InvalidField(_field(body), f"is nested too deeply, the body has more than {DEEPEST} levels by it")
    return body


def _field(body: JsonObject) -> str:
    """Where the body is too deep, such as messages[2].content."""
    field, part = "", body
    for _ in range(_NAMED_TO):
        found = next((each for each in _parts(part) if too_deep([each[1]])), None)
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
