"""/runs: optimization runs, for administrators and clients."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from api.core.access import Accessed
from api.core.answers import Json, Page, listed, no_content
from api.core.paging import Paged
from api.core.routes import EitherRoute
from api.models.base import problems
from api.models.runs import PromoteRequest, RunCreateRequest, RunResponse, run_to_wire
from api.routers.jobs_query import editor_of, maker_of
from api.services.run_page import report_page
from engine.records.runs import RunStatus, Withdrawal


class InFlight(StrEnum):
    """What becomes of calls that are under way when a run is paused."""

    FINISH = "finish"
    DROP = "drop"


_TAKEN_BACK = {InFlight.FINISH: Withdrawal.QUEUED, InFlight.DROP: Withdrawal.ALL}

Shape = Annotated[Literal["json", "html"] | None, Query(alias="format")]
Status = Annotated[RunStatus | None, Query()]
Calls = Annotated[InFlight, Query(alias="inFlight", description="Let calls under way end, or drop them.")]

Forced = Annotated[bool, Query(description="Publish the winner though it is not proven.")]

_REPORT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The report.",
        "content": {"application/json": {"schema": {"type": "object"}}, "text/html": {"schema": {"type": "string"}}},
    }
}


async def _wants_page(request: Request, shape: Shape = None) -> bool:
    """A browser's first wish is HTML."""
    return shape == "html" or (shape is None and request.headers.get("accept", "").lower().startswith("text/html"))


WantsPage = Annotated[bool, Depends(_wants_page)]

router = APIRouter(prefix="/runs", tags=["runs"], route_class=EitherRoute, responses=problems(400, 401, 413, 503))


@router.post("", status_code=201, response_model=RunResponse)
async def create_run(body: RunCreateRequest, access: Accessed) -> Response:
    """Begins a run: its first job is in the queue when this answers."""
    maker = maker_of(await access.caller())
    return Json(run_to_wire(await access.call(access.services.runs.create, body, maker)), status_code=201)


@router.get("", response_model=list[RunResponse])
async def list_runs(page: Paged, access: Accessed, status: Status = None) -> Response:
    editor = editor_of(await access.caller())
    runs, total = await access.call(access.services.runs.list, editor, status, page)
    return listed(map(run_to_wire, runs), total)


@router.get("/{run_id}", response_model=RunResponse, responses=problems(404))
async def get_run(run_id: str, access: Accessed) -> Response:
    editor = editor_of(await access.caller())
    run = await access.call(access.services.runs.get, editor, run_id)
    return Json(run_to_wire(run, await access.call(access.services.waits.of_run, run)))


@router.patch("/{run_id}/pause", response_model=RunResponse)
async def pause_run(run_id: str, access: Accessed, in_flight: Calls = InFlight.FINISH) -> Response:
    """Takes queued jobs back and makes no new ones until the run is resumed."""
    editor = editor_of(await access.caller())
    return Json(run_to_wire(await access.call(access.services.runs.pause, editor, run_id, _TAKEN_BACK[in_flight])))


@router.patch("/{run_id}/resume", response_model=RunResponse)
async def resume_run(run_id: str, access: Accessed) -> Response:
    """Goes on where a paused run was."""
    editor = editor_of(await access.caller())
    return Json(run_to_wire(await access.call(access.services.runs.resume, editor, run_id)))


@router.patch("/{run_id}/cancel", response_model=RunResponse)
async def cancel_run(run_id: str, access: Accessed) -> Response:
    """Ends a run. Its jobs are taken back at once, those in flight too."""
    editor = editor_of(await access.caller())
    return Json(run_to_wire(await access.call(access.services.runs.cancel, editor, run_id)))


@router.post("/{run_id}/promote", response_model=RunResponse)
async def promote_run(
    run_id: str, access: Accessed, force: Forced = False, body: PromoteRequest | None = None
) -> Response:
    """Publishes the prompt that a run has proven to be better; `force` also one unproven, or edited since.

    With a body it is not published, but becomes a canary of that flow, scored by the run's evaluator.
    """
    caller = await access.caller()
    editor = editor_of(caller)
    if body is not None:
        winner = await access.call(access.services.runs.winner, editor, run_id, force=force)
        await access.call(access.services.prompt_flows.try_out, body.prompt_flow, winner, body.share, caller)
        return Json(run_to_wire(await access.call(access.services.runs.get, editor, run_id)))
    return Json(run_to_wire(await access.call(access.services.runs.promote, editor, run_id, force=force)))


@router.get("/{run_id}/report", response_class=Response, responses={**problems(404), **_REPORT})
async def report_run(run_id: str, page: WantsPage, access: Accessed) -> Response:
    """What a run has found, as JSON or, for browsers and with `format=html`, as a page."""
    editor = editor_of(await access.caller())
    report = await access.call(access.services.runs.report, editor, run_id)
    return Page(await access.call(report_page, report)) if page else Json(report)


@router.delete("/{run_id}", status_code=204, responses=problems(404))
async def delete_run(run_id: str, access: Accessed) -> Response:
    """Deletes a run, whatever it does, and takes its jobs back."""
    editor = editor_of(await access.caller())
    await access.call(access.services.runs.delete, editor, run_id)
    return no_content()
