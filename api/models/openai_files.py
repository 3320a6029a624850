"""Files and batches as OpenAI's API shows them: instants are seconds since 1970."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator

from api.models.openai_requests import OpenAiBody
from engine.llm import JsonObject, Usage
from engine.records.batches import Batch, BatchStatus
from engine.records.files import StoredFile

MOST_PAIRS = 16


class OpenAiFile(BaseModel):
    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: str


class OpenAiFileList(BaseModel):
    object: Literal["list"]
    data: list[OpenAiFile]
    first_id: str | None
    last_id: str | None
    has_more: bool


class OpenAiFileDeleted(BaseModel):
    id: str
    object: Literal["file"]
    deleted: bool


class OutputExpiry(OpenAiBody):
    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class BatchRequest(OpenAiBody):
    """A batch as it is asked for."""

    input_file_id: Annotated[str, Field(min_length=1, max_length=255)]
    endpoint: Annotated[str, Field(min_length=1, max_length=255)]
    completion_window: Literal["24h"]
    metadata: dict[str, str] | None = None
    output_expires_after: OutputExpiry | None = None

    @field_validator("metadata")
    @classmethod
    def _is_small(cls, pairs: dict[str, str] | None) -> dict[str, str] | None:
        if pairs is None:
            return None
        if len(pairs) > MOST_PAIRS:
            raise ValueError(f"has more than {MOST_PAIRS} pairs")
        if any(len(key) > 64 or len(value) > 512 for key, value in pairs.items()):
            raise ValueError("a key is longer than 64 characters, or a value longer than 512")
        return pairs


class OpenAiBatch(BaseModel):
    """`waits_for` is Metasync's own: what keeps an open batch from going on, also that no worker will ever take it."""

    id: str
    object: Literal["batch"]
    endpoint: str
    model: str | None
    errors: JsonObject | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: JsonObject
    usage: JsonObject | None
    metadata: dict[str, str] | None
    waits_for: JsonObject | None = None


class OpenAiBatchList(BaseModel):
    object: Literal["list"]
    data: list[OpenAiBatch]
    first_id: str | None
    last_id: str | None
    has_more: bool


def file_to_wire(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size,
        "created_at": int(file.metadata.created_at.timestamp()),
        "expires_at": _seconds(file.expires_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": str(file.status),
    }


def batch_to_wire(batch: Batch, waits_for: tuple[str, str] | None = None) -> dict[str, Any]:
    """`waits_for` is a stable word, and a sentence for people."""
    instants = ("in_progress_at", "expires_at", "finalizing_at", "completed_at", "failed_at", "expired_at")
    shown: dict[str, Any] = {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": _errors(batch),
        "input_file_id": batch.input_file_id,
        "completion_window": "24h",
        "status": str(batch.status),
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": int(batch.metadata.created_at.timestamp()),
        **{name: _seconds(getattr(batch, name)) for name in (*instants, "cancelling_at", "cancelled_at")},
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "usage": _usage(batch.usage) if not batch.is_open and batch.total else None,
        "metadata": None if batch.pairs is None else dict(batch.pairs),
    }
    if waits_for is not None:
        shown["waits_for"] = {"reason": waits_for[0], "text": waits_for[1]}
    return shown


def listed_to_wire(items: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """A page as OpenAI's lists have it; `items` may hold one more than the page, which tells that there are more."""
    shown = items[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(items) > limit,
    }


def _errors(batch: Batch) -> JsonObject | None:
    if not batch.problems:
        return None
    data = [
        {"code": each.code, "message": each.message, "param": each.param, "line": each.line} for each in batch.problems
    ]
    return {"object": "list", "data": data}


def _usage(usage: Usage) -> JsonObject:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _seconds(instant: datetime | None) -> int | None:
    return None if instant is None else int(instant.timestamp())
