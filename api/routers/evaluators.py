"""/evaluators: sets of metrics that score answers."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.core.access import Accessed
from api.core.answers import Json, listed, no_content
from api.core.hang_up import hung_up
from api.core.paging import Paged
from api.core.routes import EitherRoute
from api.models.base import problems
from api.models.dry_runs import DryRunRequest, DryRunResponse, tried_to_wire
from api.models.evaluators import EvaluatorCreateRequest, EvaluatorResponse, evaluator_to_wire
from api.routers.jobs_query import editor_of, maker_of
from api.services.direct import Patience
from api.services.job_drafts import Maker
from api.services.references import User

router = APIRouter(
    prefix="/evaluators", tags=["evaluators"], route_class=EitherRoute, responses=problems(400, 401, 413, 503)
)

Named = Annotated[str | None, Query(description="Every version of this name.")]


@router.post("", status_code=201, response_model=EvaluatorResponse)
async def create_evaluator(body: EvaluatorCreateRequest, access: Accessed) -> Response:
    """Makes an evaluator, or the next version of one."""
    maker = maker_of(await access.caller())
    evaluator = await access.call(access.services.data.evaluators.create, body.draft(), maker)
    return Json(evaluator_to_wire(evaluator), status_code=201)


@router.get("", response_model=list[EvaluatorResponse])
async def list_evaluators(page: Paged, access: Accessed, name: Named = None) -> Response:
    editor = editor_of(await access.caller())
    evaluators, total = await access.call(access.services.data.evaluators.list, editor, name, page)
    return listed(map(evaluator_to_wire, evaluators), total)


@router.get("/{evaluator_id}", response_model=EvaluatorResponse, responses=problems(404))
async def get_evaluator(evaluator_id: str, access: Accessed) -> Response:
    editor = editor_of(await access.caller())
    return Json(evaluator_to_wire(await access.call(access.services.data.evaluators.get, editor, evaluator_id)))


@router.delete("/{evaluator_id}", status_code=204, responses=problems(404))
async def delete_evaluator(evaluator_id: str, access: Accessed) -> Response:
    """Deletes one version. What uses it already goes on with it."""
    editor = editor_of(await access.caller())
    await access.call(access.services.data.evaluators.delete, editor, evaluator_id)
    return no_content()


@router.post("/{evaluator_id}/dry-run", response_model=DryRunResponse, responses=problems(404))
async def dry_run(evaluator_id: str, body: DryRunRequest, request: Request, access: Accessed) -> Response:
    """Scores one item. Judges, and the model where no output is given, are really called, as the caller's jobs."""
    caller = await access.caller()
    evaluator = await access.call(access.services.data.evaluators.get, editor_of(caller), evaluator_id)
    maker = Maker(User(evaluator.client_id, any_prompt=caller.admin), caller.by)
    patience = Patience(body.timeout, lambda: hung_up(request))
    tried = await access.services.data.dry_runs.run(evaluator, body.trying(evaluator.id), maker, patience)
    return Json(tried_to_wire(tried))
