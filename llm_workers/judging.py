"""Repairs answers and holds them to schemas, in a process of its own (see utilities.apart): texts, schemas and patterns
are made by others, and both libraries can be kept busy for hours by a few kilobytes of them."""

import sys
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from utilities.apart import serve
from utilities.json_repair import repaired_json

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

_MOST_SCHEMAS = 256
_MOST_PROBLEMS = 100
_MOST_TOLD = 5


def handle(request: bytes) -> bytes:
    """["repair", text] -> {"value"} or {"error"}; ["compile", schema] -> {"problem"}; ["check", schema, value] ->
    {"problem"} or {"error"}; a problem is null where there is none."""
    kind, *arguments = orjson.loads(request)
    if kind == "repair":
        return orjson.dumps(_repaired(*arguments))
    if kind == "compile":
        return orjson.dumps({"problem": _schema_problem(*arguments)})
    return orjson.dumps(_checked(*arguments))


def _repaired(text: str) -> dict[str, Any]:
    try:
        return {"value": repaired_json(text)}
    except ValueError as error:
        return {"error": str(error)}


def _schema_problem(schema: Any) -> str | None:
    from jsonschema import SchemaError  # noqa: PLC0415 - slow to import, seldom needed

    try:
        _compiled(orjson.dumps(schema))
    except (SchemaError, RecursionError) as error:
        return f"not a JSON schema (at {error.json_path if isinstance(error, SchemaError) else '$'})"
    return None


@lru_cache(maxsize=_MOST_SCHEMAS)
def _compiled(text: bytes) -> "Validator":
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - as above
    from jsonschema.validators import validator_for  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    schema = orjson.loads(text)
    kind = validator_for(schema, default=Draft202012Validator)
    kind.check_schema(schema)
    # An empty registry: the default one fetches references from the network.
    validator: Validator = kind(schema, registry=Registry())
    return validator


def _checked(schema: Any, value: Any) -> dict[str, Any]:
    from referencing.exceptions import Unresolvable  # noqa: PLC0415 - as above

    try:
        problems = list(islice(_compiled(orjson.dumps(schema)).iter_errors(value), _MOST_PROBLEMS))
    except (Unresolvable, RecursionError):
        return {"error": "it refers to something outside itself, or to itself without end"}
    return {"problem": "; ".join(_told(problems)) or None}


def _told(problems: "list[ValidationError]") -> list[str]:
    """What is wrong, the likeliest reason first; of many enough that another answer can do without them."""
    from jsonschema.exceptions import best_match  # noqa: PLC0415 - as above

    best = best_match(problems)
    ordered = problems if best is None else [best, *problems]
    lines = (f"{each.json_path} breaks {each.validator!r}: {str(each.validator_value)[:200]}" for each in ordered)
    return list(dict.fromkeys(lines))[:_MOST_TOLD]


if __name__ == "__main__":
    serve(handle, sys.stdin.buffer, sys.stdout.buffer, float(sys.argv[1]))
