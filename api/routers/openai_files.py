"""/v1/files, as OpenAI's API has them."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.core.access import Access, Accessed
from api.core.answers import Json
from api.core.form_stream import FormStream
from api.core.routes import EitherRoute
from api.models.openai_files import OpenAiFile, OpenAiFileDeleted, OpenAiFileList, file_to_wire, listed_to_wire
from api.models.openai_requests import openai_problems
from api.routers.jobs_query import IdempotencyKey, maker_of
from api.services.files import FileTerms
from api.services.uploads import Content, receive
from engine.errors import InvalidField
from engine.jobs.queue import Page

router = APIRouter(
    prefix="/v1/files", tags=["openai"], route_class=EitherRoute, responses=openai_problems(400, 401, 422, 503)
)

Limit = Annotated[int, Query(ge=1, le=10_000)]
Order = Annotated[Literal["asc", "desc"], Query(description="By creation.")]
After = Annotated[str | None, Query(max_length=255, description="The id of the last file of the page before.")]
Purpose = Annotated[str | None, Query(max_length=64)]

_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string"},
                        "expires_after[anchor]": {"type": "string", "const": "created_at"},
                        "expires_after[seconds]": {"type": "integer"},
                    },
                }
            }
        },
    }
}


@router.post("", response_model=OpenAiFile, responses=openai_problems(413), openapi_extra=_FORM)
async def upload_file(request: Request, access: Accessed, key: IdempotencyKey = None) -> Response:
    """Stores a file of up to 200 MB as it comes. One for a batch is kept for 30 days, where nothing else is asked."""
    maker = maker_of(await access.caller())
    form = FormStream(request.headers.get("content-type", ""))
    content = Content(form, request.stream(), lambda: _terms(form))
    file, replayed = await receive(access.services.files, content, maker, key, access.services.gate)
    return Json(file_to_wire(file), headers={"Idempotency-Replayed": "true"} if replayed else {})


@router.get("", response_model=OpenAiFileList)
async def list_files(
    access: Accessed, purpose: Purpose = None, limit: Limit = 10_000, order: Order = "desc", after: After = None
) -> Response:
    page = Page(limit=limit + 1, newest_first=order == "desc")
    visible_to = (await access.caller()).visible_to
    files = await access.call(access.services.files.list, visible_to, purpose, after, page)
    return Json(listed_to_wire([file_to_wire(file) for file in files], limit))


@router.get("/{file_id}", response_model=OpenAiFile, responses=openai_problems(404))
async def get_file(file_id: str, access: Accessed) -> Response:
    visible_to = (await access.caller()).visible_to
    return Json(file_to_wire(await access.call(access.services.files.get, file_id, visible_to)))


@router.get("/{file_id}/content", response_class=Response, responses=openai_problems(404))
async def get_file_content(file_id: str, access: Accessed) -> Response:
    """The bytes as they were uploaded, or as a batch wrote them."""
    visible_to = (await access.caller()).visible_to
    file = await access.call(access.services.files.get, file_id, visible_to)
    chunks = _read(access, access.services.files.chunks(file))
    headers = {"Content-Length": str(file.size)}
    return StreamingResponse(chunks, media_type="application/octet-stream", headers=headers)


@router.delete("/{file_id}", response_model=OpenAiFileDeleted, responses=openai_problems(404))
async def delete_file(file_id: str, access: Accessed) -> Response:
    """Refused while a batch that has not ended reads it."""
    visible_to = (await access.caller()).visible_to
    await access.call(access.services.files.delete, file_id, visible_to)
    return Json({"id": file_id, "object": "file", "deleted": True})


def _terms(form: FormStream) -> FileTerms:
    if form.filename is None:
        raise InvalidField("file", "is missing")
    seconds = form.fields.get("expires_after[seconds]")
    if seconds is not None and not (seconds.isascii() and seconds.isdigit() and len(seconds) < 10):
        raise InvalidField("expires_after[seconds]", "must be a whole number of seconds")
    if form.fields.get("expires_after[anchor]", "created_at") != "created_at":
        raise InvalidField("expires_after[anchor]", "must be created_at")
    kept = None if seconds is None else int(seconds)
    return FileTerms(filename=form.filename, purpose=form.fields.get("purpose", ""), seconds=kept)


async def _read(access: Access, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """A chunk at a time, each fetched when the one before has been taken: a slow reader holds no thread."""
    while (chunk := await access.call(next, chunks, None)) is not None:
        yield chunk
