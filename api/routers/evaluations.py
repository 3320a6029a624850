"""/evaluations: prompts by models on a dataset, scored by an evaluator."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.core.access import Accessed
from api.core.answers import Json, listed, no_content
from api.core.paging import Paged
from api.core.routes import EitherRoute
from api.models.base import problems
from api.models.evaluations import (
    ComparisonResponse,
    EvaluationCreateRequest,
    EvaluationResponse,
    ItemResultResponse,
    comparison_to_wire,
    evaluation_to_wire,
    result_to_wire,
)
from api.routers.jobs_query import editor_of, maker_of
from engine.records.evaluations import EvaluationStatus

Status = Annotated[EvaluationStatus | None, Query()]
Cell = Annotated[int, Query(ge=0, le=10_000, description="Of this evaluation.")]
OtherCell = Annotated[int, Query(alias="otherCell", ge=0, le=10_000, description="Of the other one.")]

router = APIRouter(
    prefix="/evaluations", tags=["evaluations"], route_class=EitherRoute, responses=problems(400, 401, 413, 503)
)


@router.post("", status_code=201, response_model=EvaluationResponse)
async def create_evaluation(body: EvaluationCreateRequest, access: Accessed) -> Response:
    """Begins an evaluation. Its calls are ordinary jobs of the operation `evaluation`, so a worker has to run."""
    maker = maker_of(await access.caller())
    made = await access.call(access.services.data.evaluations.create, body, maker)
    return Json(evaluation_to_wire(made), status_code=201)


@router.get("", response_model=list[EvaluationResponse])
async def list_evaluations(page: Paged, access: Accessed, status: Status = None) -> Response:
    editor = editor_of(await access.caller())
    found, total = await access.call(access.services.data.evaluations.list, editor, status, page)
    return listed(map(evaluation_to_wire, found), total)


@router.get("/{evaluation_id}", response_model=EvaluationResponse, responses=problems(404))
async def get_evaluation(evaluation_id: str, access: Accessed) -> Response:
    editor = editor_of(await access.caller())
    found = await access.call(access.services.data.evaluations.get, editor, evaluation_id)
    return Json(evaluation_to_wire(found, await access.call(access.services.waits.of_evaluation, found)))


@router.get("/{evaluation_id}/results", response_model=list[ItemResultResponse], responses=problems(404))
async def list_evaluation_results(evaluation_id: str, page: Paged, access: Accessed) -> Response:
    """What came of each item in each cell, as far as it is there; an item's cells together."""
    editor = editor_of(await access.caller())
    found, total = await access.call(access.services.data.evaluations.results, editor, evaluation_id, page)
    return listed((result_to_wire(result, output) for result, output in found), total)


@router.get("/{evaluation_id}/compare/{other_id}", response_model=ComparisonResponse, responses=problems(404))
async def compare_evaluations(
    evaluation_id: str, other_id: str, access: Accessed, cell: Cell = 0, other_cell: OtherCell = 0
) -> Response:
    """Whether the other one's cell is really better than this one's, item by item. Both may be of one evaluation, and
    both have to have ended; of cancelled ones what was scored is compared."""
    editor = editor_of(await access.caller())
    sides = (evaluation_id, cell), (other_id, other_cell)
    return Json(comparison_to_wire(await access.call(access.services.data.evaluations.compare, editor, *sides)))


@router.post("/{evaluation_id}/cancel", response_model=EvaluationResponse)
async def cancel_evaluation(evaluation_id: str, access: Accessed) -> Response:
    """Ends an evaluation and takes its jobs back, those in flight too. What is scored already stays."""
    editor = editor_of(await access.caller())
    return Json(evaluation_to_wire(await access.call(access.services.data.evaluations.cancel, editor, evaluation_id)))


@router.delete("/{evaluation_id}", status_code=204, responses=problems(404))
async def delete_evaluation(evaluation_id: str, access: Accessed) -> Response:
    """Deletes an evaluation, whatever it does, and takes its jobs back."""
    editor = editor_of(await access.caller())
    await access.call(access.services.data.evaluations.delete, editor, evaluation_id)
    return no_content()
