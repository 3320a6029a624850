"""/clients: for the administrator alone."""

from fastapi import APIRouter, Response

from api.core.access import Accessed
from api.core.answers import Json, listed, no_content
from api.core.paging import Paged
from api.core.routes import AdminRoute
from api.models.base import problems
from api.models.clients import (
    ClientCreateRequest,
    ClientCreateResponse,
    ClientResponse,
    ClientRotateKeyResponse,
    ClientUpdateRequest,
    client_to_wire,
    created_client_to_wire,
    rotated_key_to_wire,
)

router = APIRouter(prefix="/clients", tags=["clients"], route_class=AdminRoute, responses=problems(401, 404, 413, 503))


@router.post("", status_code=201, response_model=ClientCreateResponse)
async def create_client(body: ClientCreateRequest, access: Accessed) -> Response:
    """Makes a client. Its API key is in this answer and nowhere else."""
    made = await access.call(access.services.clients.create, body.fields())
    return Json(created_client_to_wire(made), status_code=201)


@router.get("", response_model=list[ClientResponse])
async def list_clients(page: Paged, access: Accessed) -> Response:
    clients, total = await access.call(access.services.clients.list, page)
    return listed(map(client_to_wire, clients), total)


@router.get("/{client_id}", response_model=ClientResponse)
async def get_client(client_id: str, access: Accessed) -> Response:
    return Json(client_to_wire(*await access.call(access.services.clients.shown, client_id)))


@router.patch("/{client_id}", response_model=ClientResponse)
async def update_client(client_id: str, body: ClientUpdateRequest, access: Accessed) -> Response:
    """Changes what is given. Disabling a client stops its workers; a higher budget lets its jobs go on at once."""
    client = await access.call(access.services.clients.update, client_id, body.fields())
    return Json(client_to_wire(client))


@router.delete("/{client_id}", status_code=204)
async def delete_client(client_id: str, access: Accessed) -> Response:
    """Deletes a client and stops its workers."""
    await access.call(access.services.clients.delete, client_id)
    return no_content()


@router.post("/{client_id}/toggle", response_model=ClientResponse)
async def toggle_client(client_id: str, access: Accessed) -> Response:
    """Disables an enabled client and the other way round."""
    return Json(client_to_wire(await access.call(access.services.clients.toggle, client_id)))


@router.post("/{client_id}/rotate-key", response_model=ClientRotateKeyResponse)
async def rotate_client_key(client_id: str, access: Accessed) -> Response:
    """Gives a client a new API key, shown in this answer only; the old one stops at once."""
    return Json(rotated_key_to_wire(await access.call(access.services.clients.rotate_key, client_id)))
