"""/workers: configured consumers of the queue, for administrators and clients."""

from fastapi import APIRouter, Response

from api.core.access import Accessed
from api.core.answers import Json, listed, no_content
from api.core.paging import Paged
from api.core.routes import EitherRoute
from api.models.base import problems
from api.models.worker import (
    BatchAction,
    WorkerBatchCreateRequest,
    WorkerBatchCreateResponse,
    WorkerBatchUpdateRequest,
    WorkerBatchUpdateResponse,
    WorkerCreateRequest,
    WorkerResponse,
    WorkerSummaryResponse,
    WorkerUpdateRequest,
    created_to_wire,
    updated_to_wire,
    worker_summary_to_wire,
    worker_to_wire,
)
from api.routers.jobs_query import editor_of
from api.routers.workers_query import SummaryFilters
from api.services.worker_batches import create_many, start_or_stop

router = APIRouter(
    prefix="/workers", tags=["workers"], route_class=EitherRoute, responses=problems(400, 401, 403, 404, 413, 503)
)


@router.post("", status_code=201, response_model=WorkerResponse)
async def create_worker(body: WorkerCreateRequest, access: Accessed) -> Response:
    """Makes a stopped worker. Its `workerId` from now on is the one in this answer."""
    caller = await access.caller()
    create = access.services.workers.create
    return Json(
        worker_to_wire(await access.call(create, editor_of(caller), caller.owner(), body.draft())), status_code=201
    )


@router.post("/batch", status_code=201, response_model=WorkerBatchCreateResponse)
async def create_workers(body: WorkerBatchCreateRequest, access: Accessed) -> Response:
    """Makes stopped workers named prefix-1 to prefix-count; names that are taken are reported."""
    caller, workers = await access.caller(), access.services.workers
    result = await access.call(create_many, workers, editor_of(caller), caller.owner(), body.draft(), body.count)
    return Json(created_to_wire(result), status_code=201)


@router.get("", response_model=list[WorkerResponse])
async def list_workers(page: Paged, access: Accessed) -> Response:
    editor = editor_of(await access.caller())
    workers, total = await access.call(access.services.workers.list, editor, page)
    return listed(map(worker_to_wire, workers), total)


@router.patch("/batch", response_model=WorkerBatchUpdateResponse)
async def update_workers(body: WorkerBatchUpdateRequest, access: Accessed) -> Response:
    """Starts or stops many workers; those that cannot be are reported."""
    editor, workers = editor_of(await access.caller()), access.services.workers
    start, ids = body.action is BatchAction.START, body.worker_ids or []
    result = await access.call(start_or_stop, workers, editor, start=start, worker_ids=ids, group=body.group)
    return Json(updated_to_wire(result, body.action))


@router.get("/summary", response_model=WorkerSummaryResponse)
async def summarize_workers(filters: SummaryFilters, access: Accessed) -> Response:
    """Counts by status. `clientReference.<field>=value` filters by the workers' own clientReferenceFilters."""
    editor = editor_of(await access.caller())
    workers = await access.call(access.services.workers.matching, editor, filters.to_query())
    return Json(worker_summary_to_wire(workers))


@router.get("/{worker_id}", response_model=WorkerResponse)
async def get_worker(worker_id: str, access: Accessed) -> Response:
    editor = editor_of(await access.caller())
    return Json(worker_to_wire(*await access.call(access.services.workers.shown, editor, worker_id)))


@router.patch("/{worker_id}", response_model=WorkerResponse)
async def update_worker(worker_id: str, body: WorkerUpdateRequest, access: Accessed) -> Response:
    """Gives a stopped worker another configuration."""
    editor = editor_of(await access.caller())
    config = None if body.config is None else body.config.to_domain()
    return Json(worker_to_wire(await access.call(access.services.workers.update, editor, worker_id, config)))


@router.delete("/{worker_id}", status_code=204)
async def delete_worker(worker_id: str, access: Accessed) -> Response:
    """Deletes a stopped worker."""
    editor = editor_of(await access.caller())
    await access.call(access.services.workers.delete, editor, worker_id)
    return no_content()


@router.post("/{worker_id}/start", response_model=WorkerResponse)
async def start_worker(worker_id: str, access: Accessed) -> Response:
    """Lets a stopped worker run from now on."""
    editor = editor_of(await access.caller())
    return Json(worker_to_wire(await access.call(access.services.workers.start, editor, worker_id)))


@router.post("/{worker_id}/stop", response_model=WorkerResponse)
async def stop_worker(worker_id: str, access: Accessed) -> Response:
    """Stops a worker wherever it runs. What is in flight ends by itself within a grace period or goes back."""
    editor = editor_of(await access.caller())
    return Json(worker_to_wire(await access.call(access.services.workers.stop, editor, worker_id)))
