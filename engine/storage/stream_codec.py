"""Streams to documents and back. Costs are split in two, so that no sum outgrows what databases add exactly."""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from engine.errors import StorageCorrupt
from engine.jobs.job import Lease
from engine.jobs.references import flatten
from engine.pricing import from_units, to_units
from engine.records.streams import OPERATION, Stream, StreamStatus, StreamSums
from engine.storage.codec import (
    Document,
    call_from_document,
    call_to_document,
    certain_instant,
    failure_from_document,
    failure_to_document,
    instant,
    json_text,
    json_value,
    metadata_from_document,
    metadata_to_document,
)

SPLIT = 10**9
SUMS = (
    *("measured", "inputTokens", "outputTokens", "llmDuration", "totalDuration"),
    *("inputCost", "inputCostHigh", "outputCost", "outputCostHigh"),
)
"""What is added up over streams, in the order in which `sums_of` reads it."""


def group_of(stream: Stream) -> str:
    """The same for streams of the same model, reference and set of prompts."""
    options = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    key = orjson.dumps([stream.model, stream.client_reference, sorted(set(stream.additional_prompts))], option=options)
    return hashlib.sha256(key).hexdigest()


def stream_to_document(stream: Stream) -> Document:
    """The whole stored form."""
    lease = stream.lease
    return {
        "_id": stream.id,
        "clientId": stream.client_id,
        "model": stream.model,
        "status": str(stream.status),
        "operation": OPERATION,
        "createdAt": stream.metadata.created_at,
        "group": group_of(stream),
        "references": list(flatten(stream.client_reference)),
        "leaseOwner": None if lease is None else lease.owner,
        "leaseUntil": None if lease is None else lease.expires_at,
        "revision": stream.revision,
        **_sums(stream),
        "temperature": stream.temperature,
        "repeatable": stream.repeatable,
        "additionalPrompts": list(stream.additional_prompts),
        "clientReference": json_text(stream.client_reference),
        "errorData": failure_to_document(stream.failure),
        "calls": [call_to_document(call) for call in stream.calls],
        "duration": stream.total_duration,
        "endpoint": stream.endpoint,
        "completedAt": stream.completed_at,
        "_metadata": metadata_to_document(stream.metadata),
        "userPrompt": stream.user_prompt,
        "chat": json_text(stream.chat),
        "text": stream.text,
        "answer": json_text(stream.answer),
    }


def _sums(stream: Stream) -> Document:
    """`currency` and `otherCurrency` are the least and the greatest of the calls' currencies."""
    totals = stream.totals
    input_high, input_low = divmod(to_units(totals.input_cost), SPLIT)
    output_high, output_low = divmod(to_units(totals.output_cost), SPLIT)
    return {
        "currency": min(totals.currencies, default=None),
        "otherCurrency": max(totals.currencies, default=None),
        "measured": int(totals.calls > 0),
        "inputTokens": totals.input_tokens,
        "outputTokens": totals.output_tokens,
        "llmDuration": totals.duration,
        "totalDuration": stream.total_duration or 0.0,
        "inputCost": input_low,
        "inputCostHigh": input_high,
        "outputCost": output_low,
        "outputCostHigh": output_high,
    }


def sums_of(row: Mapping[str, Any]) -> StreamSums:
    """A back-end's row: sampleId, status, count, the SUMS, currency and otherCurrency."""
    return StreamSums(
        sample_id=row["sampleId"],
        status=StreamStatus(row["status"]),
        count=int(row["count"]),
        measured=int(row["measured"]),
        input_tokens=int(row["inputTokens"]),
        output_tokens=int(row["outputTokens"]),
        llm_duration=float(row["llmDuration"]),
        total_duration=float(row["totalDuration"]),
        input_cost=from_units(int(row["inputCostHigh"]) * SPLIT + int(row["inputCost"])),
        output_cost=from_units(int(row["outputCostHigh"]) * SPLIT + int(row["outputCost"])),
        currencies=frozenset({row["currency"], row["otherCurrency"]} - {None}),
    )


def stream_from_document(document: Mapping[str, Any]) -> Stream:
    """The stream of a stored document, which may lack its prompt and text. Raises StorageCorrupt."""
    try:
        return _stream(document)
    except (KeyError, TypeError, ValueError) as error:
        raise StorageCorrupt(f"Stream {document.get('_id')} cannot be read: {error!r}") from error


def _stream(document: Mapping[str, Any]) -> Stream:
    owner = document.get("leaseOwner")
    return Stream(
        id=str(document["_id"]),
        client_id=document["clientId"],
        model=document["model"],
        temperature=document["temperature"],
        user_prompt=document.get("userPrompt", ""),
        additional_prompts=tuple(document["additionalPrompts"]),
        client_reference=json_value(document["clientReference"]),
        chat=json_value(document.get("chat")),
        endpoint=document.get("endpoint"),
        repeatable=document.get("repeatable", False),
        status=StreamStatus(document["status"]),
        text=document.get("text", ""),
        answer=json_value(document.get("answer")),
        failure=failure_from_document(document["errorData"]),
        calls=tuple(call_from_document(call) for call in document["calls"]),
        total_duration=document["duration"],
        completed_at=instant(document["completedAt"]),
        lease=None if owner is None else Lease(owner, certain_instant(document["leaseUntil"])),
        metadata=metadata_from_document(document["_metadata"]),
        revision=document["revision"],
    )
