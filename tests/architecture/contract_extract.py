"""The bones of an OpenAPI document: paths, parameters, fields, types, limits and status codes, nothing else.

`contract_openapi.json` beside this file was made from the document of the contract that existing clients speak:

    python -m tests.architecture.contract_extract path/to/openapi.json > tests/architecture/contract_openapi.json

test_openapi_contract.py makes the same of this service's own document and compares the two.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Schema = Mapping[str, Any]
LIMITS = ("minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "minItems")


def extract(document: Mapping[str, Any]) -> dict[str, Any]:
    """{"paths": {path: {method: operation}}, "schemas": {name: fields}} in sorted order."""
    schemas = document["components"]["schemas"]
    return {
        "paths": {path: _operations(methods) for path, methods in sorted(document["paths"].items())},
        "schemas": {name: _shape(schema) for name, schema in sorted(schemas.items())},
    }


def _operations(methods: Mapping[str, Any]) -> dict[str, Any]:
    return {method.upper(): _operation(operation) for method, operation in sorted(methods.items())}


def _operation(operation: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "responses": {status: _content(answer) for status, answer in sorted(operation["responses"].items())}
    }
    parameters = operation.get("parameters", [])
    if parameters:
        found["parameters"] = {
            f"{one['in']} {one['name']}": _member(one["schema"], one.get("required", False))
            for one in sorted(parameters, key=lambda one: (one["in"], one["name"]))
        }
    if "requestBody" in operation:
        found["body"] = _content(operation["requestBody"])
    return found


def _content(holder: Mapping[str, Any]) -> str | None:
    content = holder.get("content")
    return None if content is None else type_of(next(iter(content.values())).get("schema", {}))


def _shape(schema: Schema) -> Any:
    if "properties" not in schema:
        return type_of(schema)
    required = schema.get("required", [])
    return {name: _member(field, name in required) for name, field in sorted(schema["properties"].items())}


def _member(schema: Schema, required: bool) -> str:
    return type_of(schema) + ("!" if required else "")


def type_of(schema: Schema) -> str:
    """A type on one line: `string(minLength=1)`, `null|Name`, `array<integer>`, `enum(A,B)`, `map<string>`, `any`."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in schema:
        return "|".join(sorted(type_of(option) for option in schema["anyOf"]))
    if "enum" in schema:
        return f"enum({','.join(schema['enum'])})"
    limits = ",".join(f"{name}={schema[name]:g}" for name in LIMITS if name in schema)
    return _base(schema) + (f"({limits})" if limits else "")


def _base(schema: Schema) -> str:
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"array<{type_of(schema.get('items', {}))}>"
    values = schema.get("additionalProperties")
    return f"map<{type_of(values)}>" if isinstance(values, Mapping) else kind


if __name__ == "__main__":
    source = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(json.dumps(extract(source), indent=1, sort_keys=True))
