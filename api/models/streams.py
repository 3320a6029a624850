"""Streams: bodies in and out."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, model_validator

from api.models.base import Answer, Body, JsonObjectIn, Plain, Resource, Short, resource_to_wire
from api.models.job_answer import failure_to_wire, step_to_wire
from api.services.stream_sums import group_metrics, metrics_of, summary_metrics
from api.services.streams import Analytics, StreamGroup
from engine.llm import JsonObject
from engine.records.streams import Stream, StreamStatus, StreamSums

Wire = dict[str, Any]


class StreamCreateRequest(Body):
    """`additionalPrompts` are ids of prompts; their texts are the system prompt, `userPrompt` is the user's words.

    With `promptFlow` in their place the prompts are those that the flow has now, without its canaries.
    """

    user_prompt: str = Field(min_length=1)
    additional_prompts: list[Annotated[str, Short]] | None = None
    prompt_flow: Annotated[str, Short] | None = None
    model: Annotated[str, Short, Plain] = Field(min_length=1)
    temperature: float = Field(0.7, ge=0.0, le=2.0)
    client_reference: JsonObjectIn | None = None

    @model_validator(mode="after")
    def _prompts_once(self) -> "StreamCreateRequest":
        if self.additional_prompts and self.prompt_flow is not None:
            raise ValueError("promptFlow: stands in place of additionalPrompts, and both are given")
        return self


class StreamResponse(Resource):
    """In lists `requestData` and `responseData` are null. `steps` are the provider calls."""

    stream_id: str
    client_id: str
    model: str
    temperature: float
    status: str = Field(description="streaming, completed or error")
    request_data: JsonObject | None
    response_data: JsonObject | None = Field(description="`content`: the text, also of a stream that broke off.")
    processing_metrics: JsonObject | None
    client_reference: JsonObject | None
    answered_by: str | None = Field(description="The model whose call gave the text.")
    error_data: JsonObject | None
    completed_at: datetime | None = Field(description="When it ended, in whichever way.")
    steps: list[JsonObject]


class StreamSummaryResponse(Answer):
    streaming: int = 0
    completed: int = 0
    error: int = 0
    total: int = 0
    processing_metrics: JsonObject | None = None


class StreamAnalyticsDataPoint(Answer):
    stream_id: str
    created_at: str
    model: str
    client_reference: JsonObject | None = None
    prompt_ids: list[str] | None = None
    processing_metrics: JsonObject


class StreamAnalyticsGroupMetrics(Answer):
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    total_duration: float = 0.0
    total_cost: float | None = None
    currency: str | None = None


class StreamAnalyticsGroup(Answer):
    """Streams of one model, reference and set of prompts."""

    model: str
    client_reference: JsonObject | None = None
    prompt_ids: list[str] | None = None
    count: int
    aggregated_metrics: StreamAnalyticsGroupMetrics


class StreamAnalyticsDateRange(Answer):
    since: str | None = Field(None, alias="from")
    to: str | None = None


class StreamAnalyticsResponse(Answer):
    """Of completed streams. `dataPoints` is a page of them, `totalCount` counts all; the thousand largest groups."""

    data_points: list[StreamAnalyticsDataPoint]
    groups: list[StreamAnalyticsGroup]
    total_count: int
    date_range: StreamAnalyticsDateRange


def stream_to_wire(stream: Stream) -> Wire:
    """The fields of StreamResponse."""
    ended = stream.status is not StreamStatus.STREAMING
    request = {"userPrompt": stream.user_prompt, "additionalPrompts": stream.additional_prompts}
    return {
        **stream_item_to_wire(stream),
        "requestData": request,
        "responseData": {"content": stream.text} if ended else None,
    }


def stream_item_to_wire(stream: Stream) -> Wire:
    """As in a list."""
    common = resource_to_wire(stream)
    common["_metadata"]["completedAt"] = stream.completed_at
    return {
        "streamId": stream.id,
        "clientId": stream.client_id,
        "model": stream.model,
        "temperature": stream.temperature,
        "status": stream.status,
        "requestData": None,
        "responseData": None,
        "processingMetrics": metrics_of(stream),
        "clientReference": stream.client_reference,
        "answeredBy": stream.answered_by,
        "errorData": failure_to_wire(stream.failure),
        "completedAt": stream.completed_at,
        "steps": [step_to_wire(call) for call in stream.calls],
        **common,
    }


def summary_to_wire(rows: Sequence[StreamSums]) -> Wire:
    """The fields of StreamSummaryResponse."""
    counts = {str(status): 0 for status in StreamStatus}
    for row in rows:
        counts[row.status] += row.count
    return {**counts, "total": sum(counts.values()), "processingMetrics": summary_metrics(rows)}


def analytics_to_wire(found: Analytics) -> Wire:
    """The fields of StreamAnalyticsResponse."""
    return {
        "dataPoints": [_point_to_wire(stream) for stream in found.streams],
        "groups": [_group_to_wire(group) for group in found.groups],
        "totalCount": found.total,
        "dateRange": {"from": found.query.since, "to": found.query.until},
    }


def _of(stream: Stream) -> Mapping[str, Any]:
    prompts = sorted(set(stream.additional_prompts))
    return {"model": stream.model, "clientReference": stream.client_reference, "promptIds": prompts or None}


def _point_to_wire(stream: Stream) -> Wire:
    return {
        "streamId": stream.id,
        "createdAt": stream.metadata.created_at,
        **_of(stream),
        "processingMetrics": metrics_of(stream) or {},
    }


def _group_to_wire(group: StreamGroup) -> Wire:
    metrics = group_metrics(group.sums)
    return {**_of(group.sample), "count": group.sums.count, "aggregatedMetrics": metrics}
