"""/prompt-flows: for clients and the administrator; public flows are the administrator's."""

from fastapi import APIRouter, Response

from api.core.access import Accessed
from api.core.answers import Json, listed, no_content
from api.core.paging import Paged
from api.core.routes import EitherRoute
from api.models.base import problems
from api.models.prompt_flows import (
    PromptFlowCreateRequest,
    PromptFlowResponse,
    PromptFlowUpdateRequest,
    flow_to_wire,
)

router = APIRouter(
    prefix="/prompt-flows",
    tags=["prompt-flows"],
    route_class=EitherRoute,
    responses=problems(400, 401, 403, 404, 413, 503),
)


@router.post("", status_code=201, response_model=PromptFlowResponse)
async def create_prompt_flow(body: PromptFlowCreateRequest, access: Accessed) -> Response:
    """Makes a client's private flow, or a public one for an administrator."""
    flows, caller = access.services.prompt_flows, await access.caller()
    flow = await access.call(flows.create, body.name, body.prompt_ids, body.is_public, caller)
    return Json(flow_to_wire(flow), status_code=201)


@router.get("", response_model=list[PromptFlowResponse])
async def list_prompt_flows(page: Paged, access: Accessed) -> Response:
    flows, total = await access.call(access.services.prompt_flows.list, page, await access.caller())
    return listed(map(flow_to_wire, flows), total)


@router.get("/{flow_id}", response_model=PromptFlowResponse)
async def get_prompt_flow(flow_id: str, access: Accessed) -> Response:
    return Json(flow_to_wire(await access.call(access.services.prompt_flows.get, flow_id, await access.caller())))


@router.patch("/{flow_id}", response_model=PromptFlowResponse)
async def update_prompt_flow(flow_id: str, body: PromptFlowUpdateRequest, access: Accessed) -> Response:
    """Changes what is given. Only an administrator makes a flow public."""
    flow = await access.call(access.services.prompt_flows.update, flow_id, body.edit(), await access.caller())
    return Json(flow_to_wire(flow))


@router.delete("/{flow_id}", status_code=204)
async def delete_prompt_flow(flow_id: str, access: Accessed) -> Response:
    await access.call(access.services.prompt_flows.delete, flow_id, await access.caller())
    return no_content()
