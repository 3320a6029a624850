"""/datasets: examples to try prompts on, for administrators and clients."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from api.core.access import Accessed
from api.core.answers import Json, listed, no_content
from api.core.own_bodies import inlined, missing, validated
from api.core.paging import Paged
from api.core.routes import EitherRoute
from api.models.base import problems
from api.models.dataset_uploads import Form, Uploaded, form_of
from api.models.datasets import (
    DatasetCreateRequest,
    DatasetItemResponse,
    DatasetPreviewResponse,
    DatasetResponse,
    Name,
    dataset_to_wire,
    item_to_wire,
)
from api.routers.jobs_query import editor_of, maker_of
from api.services.datasets import DatasetDraft

_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": inlined(DatasetCreateRequest.model_json_schema())},
        "application/x-ndjson": {"schema": {"type": "string", "description": "One item a line."}},
        "text/csv": {
            "schema": {
                "type": "string",
                "description": "A header, then an item a line. Columns named id, input, expected, tags and weight are "
                "what they say; all others are fields of the input.",
            }
        },
    },
}

NewName = Annotated[Name | None, Query(description="Of the dataset, where the body is a file's text.")]
OfName = Annotated[Name | None, Query(alias="name", description="All versions of this name.")]

router = APIRouter(
    prefix="/datasets", tags=["datasets"], route_class=EitherRoute, responses=problems(400, 401, 413, 503)
)


@router.post("", status_code=201, response_model=DatasetResponse, openapi_extra={"requestBody": _BODY})
async def create_dataset(request: Request, access: Accessed, name: NewName = None) -> Response:
    """Makes the next version of a dataset from items, from finished jobs, or from a file's text as JSON Lines or CSV.
    Nothing is kept where one item is wrong."""
    body = await request.body()
    form = form_of(request.headers.get("content-type"))
    if form is Form.JSON:
        draft: DatasetDraft = await access.call(validated, DatasetCreateRequest, body)
    else:
        draft = Uploaded(name or missing("query", "name"), form, body)
    maker = maker_of(await access.caller())
    made = await access.call(access.services.data.datasets.create, draft, maker)
    return Json(dataset_to_wire(made), status_code=201)


@router.get("", response_model=list[DatasetResponse])
async def list_datasets(page: Paged, access: Accessed, name: OfName = None) -> Response:
    editor = editor_of(await access.caller())
    found, total = await access.call(access.services.data.datasets.list, editor, name, page)
    return listed(map(dataset_to_wire, found), total)


@router.get("/{dataset_id}", response_model=DatasetPreviewResponse, responses=problems(404))
async def get_dataset(dataset_id: str, access: Accessed) -> Response:
    """With its first items."""
    editor = editor_of(await access.caller())
    found, items = await access.call(access.services.data.datasets.preview, editor, dataset_id)
    return Json({**dataset_to_wire(found), "preview": [item_to_wire(item) for item in items]})


@router.get("/{dataset_id}/items", response_model=list[DatasetItemResponse], responses=problems(404))
async def list_dataset_items(dataset_id: str, page: Paged, access: Accessed) -> Response:
    editor = editor_of(await access.caller())
    items, total = await access.call(access.services.data.datasets.items, editor, dataset_id, page)
    return listed(map(item_to_wire, items), total)


@router.delete("/{dataset_id}", status_code=204, responses=problems(404))
async def delete_dataset(dataset_id: str, access: Accessed) -> Response:
    """Deletes one version. What was begun with it goes on."""
    editor = editor_of(await access.caller())
    await access.call(access.services.data.datasets.delete, editor, dataset_id)
    return no_content()
