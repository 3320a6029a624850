"""/jobs: prompts to be run, for administrators and clients."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.core.access import Accessed
from api.core.answers import Json, listed, no_content
from api.core.paging import Paged
from api.core.routes import EitherRoute
from api.models.base import problems
from api.models.job import (
    JobBatchCreateRequest,
    JobBatchDeleteRequest,
    JobBatchUpdateRequest,
    JobCreateRequest,
    JobStatusUpdateRequest,
    JobUpdateRequest,
)
from api.models.job_answer import JobResponse, JobSummaryResponse, job_to_wire, summary_to_wire
from api.models.job_explanation import JobExplanation, explanation_to_wire
from api.routers.jobs_body import LongBodyRoute, StraightRoute
from api.routers.jobs_query import (
    IdempotencyKey,
    ListFilters,
    SummaryFilters,
    editor_of,
    key_of,
    maker_of,
)
from api.services.jobs_intake import Accepted
from engine.jobs.states import Surface

_PROBLEMS = problems(400, 401, 404, 413, 503)

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=EitherRoute, responses=_PROBLEMS)
batches = APIRouter(prefix="/jobs", tags=["jobs"], route_class=LongBodyRoute, responses=_PROBLEMS)
single = APIRouter(prefix="/jobs", tags=["jobs"], route_class=StraightRoute, responses=_PROBLEMS)


def _created(content: Any, accepted: Accepted) -> Json:
    headers = {"Idempotency-Replayed": "true"} if accepted.replayed else None
    return Json(content, status_code=201, headers=headers)


@single.post("", status_code=201, response_model=JobResponse)
async def create_job(
    body: JobCreateRequest, request: Request, access: Accessed, key: IdempotencyKey = None
) -> Response:
    """Stores a job. It is run when it is due and a worker takes jobs like it."""
    caller, gate = await access.caller(), access.services.gate
    request_key = key_of(key, "job", caller, await request.body())
    accepted = await access.services.intake.one(body, maker_of(caller), request_key, hop=gate, insert=gate.insert)
    return _created(job_to_wire(accepted.jobs[0]), accepted)


@batches.post("/batch", status_code=201, response_model=list[JobResponse])
async def create_jobs(
    body: JobBatchCreateRequest, request: Request, access: Accessed, key: IdempotencyKey = None
) -> Response:
    """Stores all of the jobs or, where one of them cannot be accepted, none."""
    caller, raw = await access.caller(), await request.body()

    def create() -> Response:
        request_key = key_of(key, "batch", caller, raw)
        accepted = access.services.intake.batch(body.jobs, maker_of(caller), request_key)
        return _created([job_to_wire(job) for job in accepted.jobs], accepted)

    return await access.call(create)


@router.get("", response_model=list[JobResponse])
async def list_jobs(filters: ListFilters, page: Paged, access: Accessed) -> Response:
    """Jobs in the order in which they came. `clientReference.<field>=value` filters by references."""
    query = filters.to_query(await access.caller())

    def find() -> Response:
        jobs, total = access.services.jobs.list(query, page)
        return listed(map(job_to_wire, jobs), total)

    return await access.call(find)


@router.get("/summary", response_model=JobSummaryResponse)
async def summarize_jobs(filters: SummaryFilters, access: Accessed) -> Response:
    """Counts by status, and what the jobs with a result took. `clientReference.<field>=value` filters."""
    query = filters.to_query(await access.caller())
    return Json(summary_to_wire(await access.call(access.services.jobs.summary, query)))


@batches.patch("/batch", response_model=list[JobResponse])
async def update_jobs(body: JobBatchUpdateRequest, access: Accessed) -> Response:
    """As `/full`, for many jobs: if one of the changes is not possible, none is made."""
    editor = editor_of(await access.caller())

    def update() -> Response:
        edits = [(item.job_id, item.edit()) for item in body.jobs]
        return Json([job_to_wire(job) for job in access.services.jobs.edit_many(editor, edits, Surface.FULL)])

    return await access.call(update)


@router.delete("/batch", status_code=204)
async def delete_jobs(body: JobBatchDeleteRequest, access: Accessed) -> Response:
    """Deletes all of the jobs or, where one of them is not there, none."""
    editor = editor_of(await access.caller())
    await access.call(access.services.jobs.delete_many, editor, body.job_ids)
    return no_content()


@router.get("/{job_id}", response_model=JobResponse)
async def get_job(job_id: str, access: Accessed) -> Response:
    editor = editor_of(await access.caller())
    return Json(job_to_wire(await access.call(access.services.jobs.get, editor, job_id)))


@router.get("/{job_id}/explain", response_model=JobExplanation)
async def explain_job(job_id: str, access: Accessed) -> Response:
    """Why the job is where it is: what it waits for, who holds it, how it failed."""
    editor = editor_of(await access.caller())
    job = await access.call(access.services.jobs.get, editor, job_id)
    explanation = await access.call(access.services.explainer.explain, job)
    return Json(explanation_to_wire(explanation, admin=editor.admin))


@router.patch("/{job_id}", response_model=JobResponse)
async def update_job_status(job_id: str, body: JobStatusUpdateRequest, access: Accessed) -> Response:
    """Cancels, consumes, rejects, redrives, reoffers: whatever the job's state allows."""
    editor = editor_of(await access.caller())
    job = await access.call(access.services.jobs.edit, editor, job_id, body.edit(), Surface.STATUS)
    return Json(job_to_wire(job))


@router.patch("/{job_id}/full", response_model=JobResponse)
async def update_job(job_id: str, body: JobUpdateRequest, access: Accessed) -> Response:
    """Changes fields, and claims, completes and fails jobs for workers outside of this service."""
    editor = editor_of(await access.caller())
    job = await access.call(access.services.jobs.edit, editor, job_id, body.edit(), Surface.FULL)
    return Json(job_to_wire(job))


@router.delete("/{job_id}", status_code=204)
async def delete_job(job_id: str, access: Accessed) -> Response:
    editor = editor_of(await access.caller())
    await access.call(access.services.jobs.delete, editor, job_id)
    return no_content()
