"""/v1/chat/completions and /v1/embeddings, as OpenAI's API has them, for clients made for it."""

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from api.core.access import Accessed
from api.core.answers import Json
from api.core.hang_up import hung_up
from api.core.limit_headers import limit_headers, tell_if_it_fails
from api.core.nesting import stored_body
from api.core.streamed import Streamed
from api.models.openai_frames import Chunks
from api.models.openai_requests import ChatRequest, EmbeddingsRequest, openai_problems
from api.routers.jobs_body import StraightRoute
from api.routers.jobs_query import IdempotencyKey, key_of, maker_of
from api.services.direct import Patience
from api.services.job_drafts import EndpointDraft
from api.services.openai_calls import OpenAiAnswer
from engine.errors import InvalidField
from engine.llm import JsonObject

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
DEFAULT_SECONDS = 600.0
"""How long an answer may take: as long as OpenAI's SDK waits by default."""


class CallRoute(StraightRoute):
    """A StraightRoute whose requests may also say how urgent they are and how long they may take."""

    unusual = frozenset({*StraightRoute.unusual, b"x-priority", b"x-timeout-seconds"})


router = APIRouter(
    tags=["openai"], route_class=CallRoute, responses=openai_problems(400, 401, 404, 413, 422, 429, 502, 503, 504)
)

Seconds = Annotated[
    float | None, Header(alias="x-timeout-seconds", ge=1, le=600, description="How long the answer may take.")
]
Priority = Annotated[int, Header(alias="x-priority", ge=1, le=1000, description="Lower goes first, as for jobs.")]


@router.post(CHAT)
async def create_chat_completion(
    body: ChatRequest,
    *,
    request: Request,
    access: Accessed,
    key: IdempotencyKey = None,
    priority: Priority = 1,
    seconds: Seconds = None,
) -> Response:
    """Answers a conversation by any model, whole or streamed. It is stored as a job of operation `chat.completions`,
    or as a stream. A whole answer that does not come in time is withdrawn, unless the request has an Idempotency-Key:
    repeating it then gets the answer. A stream takes no such key, since it is not said twice."""
    asked = stored_body(await request.body())
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return await _streamed(asked, request, access, key, usage=usage)
    draft = EndpointDraft(
        endpoint=CHAT, model=body.model, request_data=asked, operation="chat.completions", priority=priority
    )
    return await _answered(draft, request, access, key, seconds)


@router.post(EMBEDDINGS)
async def create_embeddings(
    body: EmbeddingsRequest,
    *,
    request: Request,
    access: Accessed,
    key: IdempotencyKey = None,
    priority: Priority = 1,
    seconds: Seconds = None,
) -> Response:
    """Embeds texts, where the model's provider does. It is stored as a job of operation `embeddings`."""
    draft = EndpointDraft(
        endpoint=EMBEDDINGS,
        model=body.model,
        request_data=stored_body(await request.body()),
        operation="embeddings",
        priority=priority,
    )
    return await _answered(draft, request, access, key, seconds)


async def _streamed(asked: JsonObject, request: Request, access: Accessed, key: str | None, *, usage: bool) -> Response:
    maker, levels = maker_of(await access.caller()), access.services.openai_calls.levels
    tell_if_it_fails(request.scope, lambda: levels(asked["model"]))
    if key is not None:
        raise InvalidField("Idempotency-Key", "a stream is not said twice: leave the key out, or do not stream")
    live = await access.services.streams.open_chat(asked, maker, access.services.gate)
    headers = limit_headers(levels(live.stream.model))
    return Streamed(live, Chunks(live.stream, usage=usage), headers=headers)


async def _answered(
    draft: EndpointDraft, request: Request, access: Accessed, key: str | None, seconds: float | None
) -> Response:
    caller, raw = await access.caller(), await request.body()
    request_key = key_of(key, draft.endpoint, caller, raw)
    wait = DEFAULT_SECONDS if seconds is None else seconds
    patience = Patience(wait, lambda: hung_up(request), for_money=False)
    calls = access.services.openai_calls
    tell_if_it_fails(request.scope, lambda: calls.levels(draft.model))
    answer = await calls.run(draft, maker_of(caller), request_key, patience)
    return Json(answer.body, headers=_headers(answer))


def _headers(answer: OpenAiAnswer) -> dict[str, str]:
    """Which job it was, how long its calls took, and what is left of the model's limits, in OpenAI's own headers."""
    headers = {"X-Job-Id": answer.job.id, "openai-processing-ms": str(round(answer.job.totals.duration * 1000))}
    headers |= limit_headers(answer.levels)
    if answer.replayed:
        headers["Idempotency-Replayed"] = "true"
    return headers
