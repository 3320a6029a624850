"""responseFormat: what a job's answer shall look like."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import orjson

LARGEST_SCHEMA = 256 * 1024
_REMEMBERED = 512
_KINDS = ("json", "text", None)


def check_response_format(value: Any) -> Any:
    """`value` if it is `json`, `text`, None or {"type": "json_schema", "schema": {…}}; raises ValueError."""
    if isinstance(value, str) or value is None:
        if value not in _KINDS:
            raise ValueError('should be "json", "text" or an object with type and schema')
        return value
    if not isinstance(value, dict) or value.get("type") != "json_schema" or not isinstance(value.get("schema"), dict):
        raise ValueError('should be "json", "text" or {"type": "json_schema", "schema": {…}}')
    problem = _problem(_text(value["schema"]))
    if problem is not None:
        raise ValueError(problem)
    return {"type": "json_schema", "schema": value["schema"]}


def _text(schema: dict[str, Any]) -> bytes:
    try:
        text = orjson.dumps(schema)
    except TypeError as error:
        raise ValueError("the schema is nested too deeply") from error
    if len(text) > LARGEST_SCHEMA:
        raise ValueError(f"the schema is larger than {LARGEST_SCHEMA} bytes")
    return text


@lru_cache(maxsize=_REMEMBERED)
def _problem(text: bytes) -> str | None:
    """Why `text` is no JSON Schema (draft 2020-12) that can be applied here; None where it is one.

    Remembered, because the jobs of a batch mostly share one and a check takes milliseconds.
    """
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - slow to import and seldom needed
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415

    schema = orjson.loads(text)
    try:
        Draft202012Validator.check_schema(schema)
        return next(_unusable(schema), None)
    except SchemaError as error:
        return f"the schema is not valid: {error.message[:500]}"
    except RecursionError:
        return "the schema is nested too deeply"


def _unusable(schema: Any) -> Iterator[str]:
    """References out of the schema, which nobody will follow, and patterns that are none."""
    if isinstance(schema, dict):
        yield from _refused(schema)
    children = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    for child in children:
        yield from _unusable(child)


def _refused(schema: dict[str, Any]) -> Iterator[str]:
    for name in ("$ref", "$dynamicRef"):
        reference = schema.get(name)
        if isinstance(reference, str) and not reference.startswith("#"):
            yield f"the schema refers to {reference[:200]}, and references out of it are not followed"
    for pattern in _patterns(schema):
        if not _compiles(pattern):
            yield f"the schema's pattern {pattern[:200]} is not valid"


def _patterns(schema: dict[str, Any]) -> Iterator[str]:
    if isinstance(schema.get("pattern"), str):
        yield schema["pattern"]
    if isinstance(schema.get("patternProperties"), dict):
        yield from schema["patternProperties"]


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    return True
