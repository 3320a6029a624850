"""/prompts: for clients and the administrator; public prompts are the administrator's."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from api.core.access import Accessed
from api.core.answers import Json, listed, no_content
from api.core.paging import Paged
from api.core.routes import EitherRoute
from api.models.base import problems
from api.models.prompts import PromptCreateRequest, PromptResponse, PromptUpdateRequest, prompt_to_wire
from api.services.prompts import PromptFilter
from engine.records.values import PromptStatus

router = APIRouter(
    prefix="/prompts", tags=["prompts"], route_class=EitherRoute, responses=problems(400, 401, 403, 404, 413, 503)
)


async def _filter(
    name: str | None = None,
    type: str | None = None,  # noqa: A002 - the contract's name
    status: PromptStatus | None = None,
    version: Annotated[str | int | None, Query(description="2 finds the versions 2 and 2 as a text.")] = None,
) -> PromptFilter:
    return PromptFilter(name=name, type=type, status=status, version=None if version is None else str(version))


Filtered = Annotated[PromptFilter, Depends(_filter)]


@router.post("", status_code=201, response_model=PromptResponse)
async def create_prompt(body: PromptCreateRequest, access: Accessed) -> Response:
    """Makes a client's private prompt, or a public one for an administrator."""
    prompt = await access.call(access.services.prompts.create, body.draft(), await access.caller())
    return Json(prompt_to_wire(prompt), status_code=201)


@router.get("", response_model=list[PromptResponse])
async def list_prompts(wanted: Filtered, page: Paged, access: Accessed) -> Response:
    prompts, total = await access.call(access.services.prompts.list, wanted, page, await access.caller())
    return listed(map(prompt_to_wire, prompts), total)


@router.get("/{prompt_id}", response_model=PromptResponse)
async def get_prompt(prompt_id: str, access: Accessed) -> Response:
    return Json(prompt_to_wire(await access.call(access.services.prompts.get, prompt_id, await access.caller())))


@router.patch("/{prompt_id}", response_model=PromptResponse)
async def update_prompt(prompt_id: str, body: PromptUpdateRequest, access: Accessed) -> Response:
    """Changes what is given. Only an administrator makes a prompt public or gives it to another client."""
    prompt = await access.call(access.services.prompts.update, prompt_id, body.edit(), await access.caller())
    return Json(prompt_to_wire(prompt))


@router.delete("/{prompt_id}", status_code=204)
async def delete_prompt(prompt_id: str, access: Accessed) -> Response:
    await access.call(access.services.prompts.delete, prompt_id, await access.caller())
    return no_content()
