"""The documentation pages, behind HTTP Basic."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from api.core.answers import Json
from api.settings import ApiSettings
from engine.errors import Unauthenticated
from utilities.keys import same_secret

REALM = "Documentation"


class DocumentationLocked(Unauthenticated):
    """Wrong or no user name and password for the documentation."""

    code = "documentation_locked"


def docs_router(settings: ApiSettings) -> APIRouter:
    """/docs, /redoc and /openapi.json for who knows the documentation's user and secret."""
    basic = HTTPBasic(realm=REALM, auto_error=False)

    async def reader(credentials: Annotated[HTTPBasicCredentials | None, Depends(basic)]) -> None:
        if credentials is None:
            raise DocumentationLocked("The documentation needs a user name and a password")
        user = same_secret(credentials.username, settings.docs_user)
        if not (same_secret(credentials.password, settings.docs_secret) and user):
            raise DocumentationLocked("Wrong user name or password")

    locked: dict[int | str, dict[str, Any]] = {401: {"description": "No valid user name and password"}}
    router = APIRouter(tags=["documentation"], dependencies=[Depends(reader)], responses=locked)

    @router.get("/docs", response_class=HTMLResponse)
    async def swagger() -> HTMLResponse:
        return get_swagger_ui_html(openapi_url="openapi.json", title="Metasync")

    @router.get("/redoc", response_class=HTMLResponse)
    async def redoc() -> HTMLResponse:
        return get_redoc_html(openapi_url="openapi.json", title="Metasync")

    @router.get("/openapi.json")
    async def openapi(request: Request) -> Json:
        return Json(request.app.openapi())

    return router
