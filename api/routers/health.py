"""/health: for load balancers and people, without authentication."""

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from api.core.access import Accessed
from api.core.answers import Json
from api.core.routes import OpenRoute
from api.models.health import alive_to_wire, healthy_to_wire, readiness_to_wire

router = APIRouter(prefix="/health", tags=["health"], route_class=OpenRoute)

_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"description": "The database does not answer"}}


def _now(access: Accessed) -> datetime:
    return access.services.clock.now()


@router.get("", response_model=dict[str, Any])
async def health(request: Request, access: Accessed) -> Response:
    """The service runs, in this version."""
    return Json(healthy_to_wire(_now(access), request.app.version))


@router.get("/live", response_model=dict[str, Any])
async def live(access: Accessed) -> Response:
    """The process is alive; says nothing about the database."""
    return Json(alive_to_wire(_now(access)))


@router.get("/ready", response_model=dict[str, Any], responses=_NOT_READY)
async def ready(request: Request, access: Accessed) -> Response:
    """The service can work: 200, or 503 while its database does not answer."""
    readiness = await access.services.health.readiness()
    wire = readiness_to_wire(readiness, _now(access), request.app.state.settings.database)
    return Json(wire, status_code=200 if readiness.database_answers else 503)
