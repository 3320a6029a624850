"""/stream: answers that come piece by piece, and their records, for administrators and clients."""

from typing import Any

from fastapi import APIRouter, Response

from api.core.access import Accessed
from api.core.answers import Json, listed
from api.core.paging import Paged
from api.core.routes import EitherRoute
from api.core.streamed import Streamed
from api.models.base import problems
from api.models.stream_frames import PLAIN, Events
from api.models.streams import (
    StreamAnalyticsResponse,
    StreamCreateRequest,
    StreamResponse,
    StreamSummaryResponse,
    analytics_to_wire,
    stream_item_to_wire,
    stream_to_wire,
    summary_to_wire,
)
from api.routers.jobs_query import maker_of
from api.routers.streams_query import ListFilters, RangeFilters, WantsEvents

router = APIRouter(prefix="/stream", tags=["streams"], route_class=EitherRoute, responses=problems(400, 401, 503))

_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The text as it comes. `Accept: text/event-stream` asks for events.",
        "content": {"text/plain": {"schema": {}}, "text/event-stream": {"schema": {}}},
        "headers": {"X-Stream-Id": {"schema": {"type": "string"}, "description": "The id of the record."}},
    },
    **problems(413, 429, 502, 504),
}


@router.post("", response_class=Response, responses=_STREAMED)
async def create_stream(body: StreamCreateRequest, events: WantsEvents, access: Accessed) -> Response:
    """Asks a model and streams its answer. Until its first piece, what goes wrong is an error like any other; later a
    plain text breaks off and an event stream ends with an event that says why."""
    maker = maker_of(await access.caller())
    live = await access.services.streams.open(body, maker, access.services.gate)
    return Streamed(live, Events() if events else PLAIN)


@router.get("", response_model=list[StreamResponse])
async def list_streams(filters: ListFilters, page: Paged, access: Accessed) -> Response:
    """Streams in the order in which they came. `clientReference.<field>=value` filters by references."""
    query = filters.to_query(await access.caller())
    streams, total = await access.call(access.services.streams.list, query, page)
    return listed(map(stream_item_to_wire, streams), total)


@router.get("/summary", response_model=StreamSummaryResponse)
async def summarize_streams(filters: ListFilters, access: Accessed) -> Response:
    """Counts by status, and what all calls took. `clientReference.<field>=value` filters."""
    query = filters.to_query(await access.caller())
    return Json(summary_to_wire(await access.call(access.services.streams.summary, query)))


@router.get("/analytics", response_model=StreamAnalyticsResponse)
async def analyze_streams(filters: RangeFilters, page: Paged, access: Accessed) -> Response:
    """Completed streams and their sums by model, reference and set of prompts. The page is that of `dataPoints`."""
    query = filters.to_query(await access.caller())
    found = await access.call(access.services.streams.analytics, query, page)
    return Json(analytics_to_wire(found), headers={"X-Total-Count": str(found.total)})


@router.get("/{stream_id}", response_model=StreamResponse, responses=problems(404))
async def get_stream(stream_id: str, access: Accessed) -> Response:
    visible_to = (await access.caller()).visible_to
    return Json(stream_to_wire(await access.call(access.services.streams.get, stream_id, visible_to)))
