"""Bodies that routes read themselves: validated, and shown in the OpenAPI document, like those that are declared."""

from typing import Any, NoReturn, TypeVar

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)


def validated(model: type[M], body: bytes) -> M:
    """`body` as a `model`. Raises RequestValidationError as for a declared body."""
    try:
        return model.model_validate(orjson.loads(body))
    except orjson.JSONDecodeError as error:
        problem = {"type": "json_invalid", "loc": ("body", error.pos), "msg": f"JSON decode error: {error.msg}"}
        raise RequestValidationError([{**problem, "input": {}}]) from error
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in found]) from error


def missing(place: str, name: str) -> NoReturn:
    """Raises RequestValidationError for a parameter that may be absent otherwise; `place` is query or header."""
    raise RequestValidationError([{"type": "missing", "loc": (place, name), "msg": "Field required", "input": None}])


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` with its `$defs` put where they are referred to. They must not refer to themselves."""
    definitions = schema.get("$defs", {})
    plain: dict[str, Any] = _put_in({key: value for key, value in schema.items() if key != "$defs"}, definitions)
    return plain


def _put_in(part: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(part, list):
        return [_put_in(each, definitions) for each in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _put_in(definitions[part["$ref"].rsplit("/", 1)[-1]], definitions)
    return {key: _put_in(value, definitions) for key, value in part.items()}
