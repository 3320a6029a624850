"""/v1/messages, as Anthropic's API has it, for clients made for it and models of Anthropic's."""

import re
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from api.core.access import Accessed
from api.core.nesting import stored_body
from api.models.anthropic_frames import Events
from api.models.anthropic_requests import MessagesRequest, anthropic_problems
from api.routers.jobs_query import IdempotencyKey
from api.routers.vendor_calls import CallRoute, Priority, Seconds, answered, streamed
from api.services.job_drafts import EndpointDraft
from engine.errors import InvalidField
from engine.llm import JsonObject

MESSAGES = "/v1/messages"
MOST_BETAS = 20
BETAS = "anthropic_beta"
"""Where a stored request has the names of its anthropic-beta header."""
_BETA = re.compile(r"[\w.-]{1,100}", re.ASCII)

router = APIRouter(
    tags=["anthropic"],
    route_class=CallRoute,
    responses=anthropic_problems(400, 401, 404, 409, 413, 422, 429, 502, 503, 504),
)


@router.post(MESSAGES)
async def create_message(
    body: MessagesRequest,
    *,
    request: Request,
    access: Accessed,
    key: IdempotencyKey = None,
    priority: Priority = 1,
    seconds: Seconds = None,
) -> Response:
    """Answers a conversation by a model of sdk Anthropic, whole or streamed, in Anthropic's own shape. It is stored as
    a job of operation `messages`, or as a stream; what POST /v1/chat/completions says of them holds. The client's key
    is in `x-api-key`, where Anthropic's SDK puts it, or a bearer's."""
    asked = stored_body(await request.body())
    asked |= _betas(asked.pop(BETAS, []), request.headers.getlist("anthropic-beta"))
    if body.stream:
        return await streamed(MESSAGES, asked, request, access, key=key, framing=Events)
    draft = EndpointDraft(
        endpoint=MESSAGES, model=body.model, request_data=asked, operation="messages", priority=priority
    )
    return await answered(draft, request, access, key, seconds)


def _betas(given: Any, values: Sequence[str]) -> JsonObject:
    """What the client wants tried out, in the body or a header, as the request has it that is stored. Raises
    InvalidField for odd names."""
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    names += given if isinstance(given, list) else [given]
    if len(names) > MOST_BETAS or not all(isinstance(name, str) and _BETA.fullmatch(name) for name in names):
        raise InvalidField("anthropic-beta", f"at most {MOST_BETAS} names of letters, digits, dots, - and _")
    return {BETAS: names} if names else {}
