"""/v1/chat/completions and /v1/embeddings, as OpenAI's API has them, for clients made for it."""

from fastapi import APIRouter, Request, Response

from api.core.access import Accessed
from api.core.nesting import stored_body
from api.models.openai_frames import Chunks
from api.models.openai_requests import ChatRequest, EmbeddingsRequest, openai_problems
from api.routers.jobs_query import IdempotencyKey
from api.routers.vendor_calls import CallRoute, Priority, Seconds, answered, streamed
from api.services.job_drafts import EndpointDraft

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
router = APIRouter(
    tags=["openai"], route_class=CallRoute, responses=openai_problems(400, 401, 404, 409, 413, 422, 429, 502, 503, 504)
)


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
    repeating it then gets the answer. A stream with such a key is said again once it has ended well, in fewer chunks;
    until then repeating it is a 409, and after a failure another try."""
    asked = stored_body(await request.body())
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return await streamed(CHAT, asked, request, access, key=key, framing=lambda stream: Chunks(stream, usage=usage))
    draft = EndpointDraft(
        endpoint=CHAT, model=body.model, request_data=asked, operation="chat.completions", priority=priority
    )
    return await answered(draft, request, access, key, seconds)


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
    return await answered(draft, request, access, key, seconds)
