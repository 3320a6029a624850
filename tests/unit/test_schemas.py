"""Schemas for vendors whose grammars are closed: said exactly, or not at all."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from llm_workers.providers.schemas import closed

TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "integer", "minimum": 1, "description": "stars"}, {"type": "integer", "description": "stars"}),
        ({"type": "string", "pattern": "^a", "maxLength": 3}, TEXT),
        ({"enum": ["a", "b"]}, {"enum": ["a", "b"]}),
        ({"type": "string", "const": "a"}, {"const": "a"}),
        ({"type": ["string", "null"]}, {"anyOf": [TEXT, {"type": "null"}]}),
        ({"oneOf": [TEXT, {"type": "number"}]}, {"anyOf": [TEXT, {"type": "number"}]}),
        ({"type": "array", "items": TEXT, "minItems": 4}, {"type": "array", "items": TEXT}),
        (
            {"$defs": {"t": TEXT}, "type": "array", "items": {"$ref": "#/$defs/t"}},
            {"$defs": {"t": TEXT}, "type": "array", "items": {"$ref": "#/$defs/t"}},
        ),
        (
            {"type": "object", "properties": {"a": TEXT}},
            {"type": "object", "properties": {"a": TEXT}, "additionalProperties": False},
        ),
        (
            {"type": "object", "additionalProperties": False},
            {"type": "object", "properties": {}, "additionalProperties": False},
        ),
    ],
    ids=str,
)
def test_what_a_closed_grammar_holds(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    """Types, choices, unions, parts and named properties stay; bounds go; objects are closed."""
    before = repr(schema)
    made = closed(schema)

    assert made == expected
    assert repr(schema) == before
    Draft202012Validator.check_schema(made)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        {"type": "object"},
        {"type": "object", "additionalProperties": True},
        {"type": "object", "additionalProperties": TEXT},
        {"type": "object", "properties": {"a": {}}},
        {"type": "array"},
        {"allOf": [TEXT]},
        {"anyOf": [TEXT, {}]},
        {"$ref": "#/definitions/a", "definitions": {"a": TEXT}},
        {"$ref": "https://example.com/schema"},
        {"type": "object", "properties": {"a": TEXT}, "patternProperties": {"^x": TEXT}},
    ],
    ids=str,
)
def test_what_it_cannot_hold(schema: Any) -> None:
    """Free keys, values of any type and conjunctions have no closed form: nothing is said, not something else."""
    assert closed(schema) is None
