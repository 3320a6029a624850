"""/complete: jobs whose callers wait for their end."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from api.core.access import Accessed
from api.core.answers import Json
from api.core.hang_up import hung_up
from api.models.base import Problem, problems
from api.models.direct import (
    DEFAULT_SECONDS,
    LONGEST_SECONDS,
    AcceptedJobResponse,
    CompleteRequest,
    accepted_to_wire,
)
from api.models.job_answer import JobResponse
from api.routers.jobs_body import StraightRoute
from api.routers.jobs_query import IdempotencyKey, key_of, maker_of
from api.services.direct import Answered, Patience

_ASYNC = "respond-async"
_LOCATION = {"Location": {"description": "Where the job is from now on.", "schema": {"type": "string"}}}
_ACCEPTED: dict[str, Any] = {
    "model": AcceptedJobResponse,
    "description": "It has not ended in time and goes on as an ordinary job",
    "headers": _LOCATION,
}
_BUSY = {"model": Problem, "description": "The database is not available, or too many direct calls are under way"}


class DirectRoute(StraightRoute):
    """A StraightRoute whose requests may also prefer not to wait."""

    unusual = frozenset({*StraightRoute.unusual, b"prefer"})


router = APIRouter(tags=["jobs"], route_class=DirectRoute, responses=problems(400, 401, 404, 413, 503))

Prefer = Annotated[str | None, Header(description="`respond-async`: do not wait, answer 202 at once.")]
Timeout = Annotated[float | None, Query(ge=0, le=LONGEST_SECONDS, description="Goes before the body's.")]


@router.post("/complete", response_model=JobResponse, responses={202: _ACCEPTED, 503: _BUSY})
async def complete(
    body: CompleteRequest,
    *,
    request: Request,
    access: Accessed,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
    timeout: Timeout = None,  # noqa: ASYNC109 - the caller's, and no reason to cancel anything
) -> Response:
    """Runs a job at once, without a worker, and answers with it when it has ended: also in error, as its status says.

    The job is stored, and can be read, listed and consumed, like any other. After `timeout` seconds (60 by default), or
    as soon as it is certain that they will not do, it goes on as an ordinary job, for which workers are needed. It also
    goes on when the caller hangs up.
    """
    caller, raw = await access.caller(), await request.body()
    patience = Patience(_wait(prefer, timeout, body.timeout), lambda: hung_up(request))
    request_key = key_of(key, "complete", caller, raw)
    answered = await access.services.direct.run(body, maker_of(caller), request_key, patience)
    return _answer(answered, asynchronous=_is_async(prefer))


def _is_async(prefer: str | None) -> bool:
    return prefer is not None and _ASYNC in (each.partition(";")[0].strip().lower() for each in prefer.split(","))


def _wait(prefer: str | None, asked: float | None, in_body: float | None) -> float:
    if _is_async(prefer):
        return 0.0
    return next((seconds for seconds in (asked, in_body) if seconds is not None), DEFAULT_SECONDS)


def _answer(answered: Answered, *, asynchronous: bool) -> Json:
    headers = {"Idempotency-Replayed": "true"} if answered.replayed else {}
    if answered.waits is None:
        return Json(accepted_to_wire(answered), headers=headers)
    headers["Location"] = f"/jobs/{answered.job.id}"
    if asynchronous:
        headers["Preference-Applied"] = _ASYNC
    return Json(accepted_to_wire(answered), status_code=202, headers=headers)
