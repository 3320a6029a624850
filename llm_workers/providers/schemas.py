"""JSON schemas for vendors that constrain an answer by a closed grammar."""

from typing import Any

from engine.llm import JsonObject

_UNIONS = ("anyOf", "oneOf")
_KEPT = ("title", "description", "enum", "const")
# Whatever needs one of these would be said wrongly without it.
_BEYOND = frozenset(
    {"allOf", "not", "if", "patternProperties", "prefixItems", "definitions", "unevaluatedProperties", "$dynamicRef"}
)
_PARTS = "#/$defs/"


def closed(schema: Any) -> JsonObject | None:
    """`schema` with its objects closed to the properties they name, and without bounds such as `minimum`.

    An answer that fits the result may still break a bound: check it against `schema` itself. None where a grammar of
    this kind cannot hold the schema: maps with free keys, conjunctions, values of any type.
    """
    try:
        return _closed(schema)
    except _NoGrammar:
        return None


class _NoGrammar(Exception):
    """A part of a schema that has no closed form."""


def _closed(schema: Any) -> JsonObject:
    if not isinstance(schema, dict) or _BEYOND & schema.keys():
        raise _NoGrammar
    made: JsonObject = {name: schema[name] for name in _KEPT if name in schema}
    if "$defs" in schema:
        made["$defs"] = {name: _closed(part) for name, part in schema["$defs"].items()}
    return {**made, **_form(schema)}


def _form(schema: JsonObject) -> JsonObject:
    """What says which values there are: a reference, literals, a union or a type."""
    if "$ref" in schema:
        return _reference(str(schema["$ref"]))
    if "enum" in schema or "const" in schema:
        return {}
    for word in _UNIONS:
        if word in schema:
            return {"anyOf": [_closed(part) for part in schema[word]]}
    kind = schema.get("type")
    if isinstance(kind, list):
        return {"anyOf": [_typed(schema, each) for each in kind]}
    return _typed(schema, kind)


def _reference(target: str) -> JsonObject:
    if not target.startswith(_PARTS):
        raise _NoGrammar
    return {"$ref": target}


def _typed(schema: JsonObject, kind: Any) -> JsonObject:
    if kind == "object":
        return {"type": kind, **_object(schema)}
    if kind == "array":
        return {"type": kind, "items": _closed(schema.get("items"))}
    if kind is None:
        raise _NoGrammar
    return {"type": kind}


def _object(schema: JsonObject) -> JsonObject:
    rest = schema.get("additionalProperties")
    named = schema.get("properties") or {}
    if rest not in (None, False) or (rest is None and not named):
        raise _NoGrammar
    required = {"required": schema["required"]} if "required" in schema else {}
    properties = {name: _closed(part) for name, part in named.items()}
    return {"properties": properties, **required, "additionalProperties": False}
