"""What an answer's text means under a job's responseFormat. The result is always an object."""

from typing import TYPE_CHECKING, Any

import orjson

from engine.errors import InvalidField
from engine.llm import JsonObject, ResponseFormat
from utilities.hop import Hop
from utilities.json_repair import repaired_json, strict_json

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_MOST_SCHEMAS = 256


class Unreadable(ValueError):
    """The text is not what the format asks for. Holds nothing of the text."""


class Answers:
    """Reads answers. Schemas are compiled once each, away from the loop. For one event loop."""

    def __init__(self, hop: Hop) -> None:
        self._hop = hop
        self._validators: dict[bytes, Validator] = {}

    async def prepare(self, wanted: ResponseFormat) -> None:
        """Raises InvalidField where the format's schema is none: before a call is paid for."""
        if isinstance(wanted, dict):
            await self._validator(wanted["schema"])

    async def read(self, text: str, wanted: ResponseFormat) -> JsonObject:
        """The object that is stored: {"text": …}, the JSON object itself, or {"value": …} for a list or scalar.

        Raises Unreadable.
        """
        if wanted == "text":
            return {"text": text}
        value = await self._value(text)
        if isinstance(wanted, dict):
            validator = await self._validator(wanted["schema"])
            problem = await self._hop(_first_problem, validator, value)
            if problem is not None:
                raise Unreadable(f"the answer does not match the schema: {problem}")
        return value if isinstance(value, dict) else {"value": value}

    async def _value(self, text: str) -> Any:
        try:
            return strict_json(text)
        except ValueError:
            pass
        try:
            return await self._hop(repaired_json, text)
        except ValueError as error:
            raise Unreadable(f"the answer is not JSON: {error}") from error

    async def _validator(self, schema: Any) -> "Validator":
        fingerprint = orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)
        validator = self._validators.get(fingerprint)
        if validator is None:
            validator = await self._hop(_compiled, schema)
            if len(self._validators) >= _MOST_SCHEMAS:
                self._validators.clear()
            self._validators[fingerprint] = validator
        return validator


def _compiled(schema: Any) -> "Validator":
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415 - slow to import, seldom needed
    from jsonschema.validators import validator_for  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except (SchemaError, RecursionError) as error:
        where = error.json_path if isinstance(error, SchemaError) else "$"
        raise InvalidField("responseFormat", f"not a JSON schema (at {where})") from error
    # An empty registry: the default one fetches references from the network.
    validator: Validator = kind(schema, registry=Registry())
    return validator


def _first_problem(validator: "Validator", value: Any) -> str | None:
    from jsonschema.exceptions import best_match  # noqa: PLC0415 - as above
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    try:
        problem = best_match(validator.iter_errors(value))
    except (Unresolvable, RecursionError):
        return "it refers to something outside itself, or to itself without end"
    if problem is None:
        return None
    return f"{problem.json_path} breaks {problem.validator!r}: {str(problem.validator_value)[:200]}"
