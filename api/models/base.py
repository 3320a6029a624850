"""What all bodies share.

Bodies in are validated by their class. Answers are built as plain dicts in wire form and rendered by orjson, which
costs a fraction of a model's serialization; their classes are what the OpenAPI document shows, and
tests/http/test_answers_fit.py holds the dicts to them.
"""

from typing import Annotated, Any, Protocol

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from engine.metadata import Metadata

SAFE_INTEGER = 2**53 - 1
"""The largest whole number that every JSON reader keeps exactly."""

LONGEST_TEXT = 10_000
"""Of names and the like: beyond every sensible use, and no document outgrows a database by them."""


def _storable(value: dict[str, Any]) -> dict[str, Any]:
    try:
        orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        raise ValueError("is nested too deeply or holds what cannot be stored") from error
    return value


def _safe(value: Any) -> Any:
    if isinstance(value, int) and abs(value) > SAFE_INTEGER:
        raise ValueError(f"should be between -{SAFE_INTEGER} and {SAFE_INTEGER}")
    return value


def short(value: str) -> str:
    if len(value) > LONGEST_TEXT:
        raise ValueError(f"is longer than {LONGEST_TEXT} characters")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("must not hold a NUL character")
    return value


JsonObjectIn = Annotated[dict[str, Any], AfterValidator(_storable)]
"""Free-form JSON that can be stored and shown again."""

Safe = AfterValidator(_safe)
"""For integers that the contract does not bound."""


Short = AfterValidator(short)
"""For texts that the contract does not bound."""

Plain = AfterValidator(_plain)
"""For texts that are looked up inside of stored JSON, where a NUL ends a text for some databases."""


class Body(BaseModel):
    """A request's body: camelCase, unknown fields ignored."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", allow_inf_nan=False, frozen=True)


class StrictBody(BaseModel):
    """The body, or a part of one, of what existing clients do not know: a field that it does not have is refused.

    A misspelt one that was ignored would cost what it was to prevent.
    """

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", allow_inf_nan=False, frozen=True)


class Answer(BaseModel):
    """An answer's description: camelCase."""

    model_config = ConfigDict(alias_generator=to_camel)


class Resource(Answer):
    """What every stored thing's answer carries. `_id` and `createdAt` repeat for the web console what is there."""

    console_id: str = Field(alias="_id", deprecated="The id, once more under this name")
    created_at: str = Field(deprecated="_metadata.createdAt, once more")
    metadata: dict[str, Any] = Field(
        alias="_metadata",
        description="isDeleted, createdAt, updatedAt, deletedAt, archivedAt, createdBy, updatedBy, deletedBy",
    )


class Problem(Answer):
    """Every error but a failed validation."""

    detail: str


class Stored(Protocol):
    """What all stored values share."""

    @property
    def id(self) -> str: ...
    @property
    def metadata(self) -> Metadata: ...


def resource_to_wire(stored: Stored) -> dict[str, Any]:
    """The fields of Resource."""
    metadata = stored.metadata
    return {
        "_id": stored.id,
        "createdAt": metadata.created_at,
        "_metadata": {
            "isDeleted": metadata.is_deleted,
            "createdAt": metadata.created_at,
            "updatedAt": metadata.updated_at,
            "deletedAt": metadata.deleted_at,
            "archivedAt": metadata.archived_at,
            "createdBy": metadata.created_by,
            "updatedBy": metadata.updated_by,
            "deletedBy": metadata.deleted_by,
        },
    }


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a router whose routes may answer these errors."""
    return {status: {"model": Problem, "description": _MEANINGS[status]} for status in statuses}


_MEANINGS = {
    400: "Not possible as things stand",
    401: "No valid credentials",
    403: "Valid credentials, not enough",
    404: "Not found",
    413: "The body is larger than allowed",
    429: "A limit or a budget is used up",
    502: "The provider failed",
    503: "The database is not available",
    504: "The provider did not answer in time",
}
