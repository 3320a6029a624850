"""/v1/batches, as OpenAI's API has them; their requests are jobs on the queue."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.core.access import Access, Accessed
from api.core.answers import Json
from api.core.routes import EitherRoute
from api.models.openai_files import BatchRequest, OpenAiBatch, OpenAiBatchList, batch_to_wire, listed_to_wire
from api.models.openai_requests import openai_problems
from api.routers.jobs_query import IdempotencyKey, key_of, maker_of
from api.routers.vendor_calls import Priority
from api.services.batches import PRIORITY, BatchDraft
from engine.records.batches import Batch

router = APIRouter(
    prefix="/v1/batches", tags=["openai"], route_class=EitherRoute, responses=openai_problems(400, 401, 422, 503)
)

Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(max_length=255, description="The id of the last batch of the page before.")]


@router.post("", response_model=OpenAiBatch)
async def create_batch(
    body: BatchRequest,
    *,
    request: Request,
    access: Accessed,
    key: IdempotencyKey = None,
    priority: Priority = PRIORITY,
) -> Response:
    """Accepts a batch of up to 50,000 requests. Nothing is run unless all of its lines are valid."""
    caller, raw = await access.caller(), await request.body()
    draft = BatchDraft(
        input_file_id=body.input_file_id,
        endpoint=body.endpoint,
        pairs=body.metadata,
        output_seconds=body.output_expires_after.seconds if body.output_expires_after else None,
        priority=priority,
    )
    request_key = key_of(key, "batches", caller, raw)
    batch, replayed = await access.call(access.services.batches.create, draft, maker_of(caller), request_key)
    return await _shown(access, batch, {"Idempotency-Replayed": "true"} if replayed else {})


@router.get("", response_model=OpenAiBatchList)
async def list_batches(access: Accessed, limit: Limit = 20, after: After = None) -> Response:
    """The newest first."""
    visible_to = (await access.caller()).visible_to
    found = await access.call(access.services.batches.list, visible_to, after, limit + 1)
    return Json(listed_to_wire([batch_to_wire(batch) for batch in found], limit))


@router.get("/{batch_id}", response_model=OpenAiBatch, responses=openai_problems(404))
async def get_batch(batch_id: str, access: Accessed) -> Response:
    visible_to = (await access.caller()).visible_to
    return await _shown(access, await access.call(access.services.batches.get, batch_id, visible_to))


@router.post("/{batch_id}/cancel", response_model=OpenAiBatch, responses=openai_problems(404))
async def cancel_batch(batch_id: str, access: Accessed, key: IdempotencyKey = None) -> Response:
    """Takes back what has no result yet; what has one is in the output file."""
    caller = await access.caller()
    request_key = key_of(key, f"batches/{batch_id}/cancel", caller, b"null")
    cancel = access.services.batches.cancel
    batch, replayed = await access.call(cancel, batch_id, caller.visible_to, caller.by, request_key)
    return await _shown(access, batch, {"Idempotency-Replayed": "true"} if replayed else {})


async def _shown(access: Access, batch: Batch, headers: dict[str, str] | None = None) -> Response:
    waits_for = await access.call(access.services.batches.waits_for, batch)
    return Json(batch_to_wire(batch, waits_for), headers=headers or {})
