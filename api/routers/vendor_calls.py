"""What the endpoints share that take a vendor's own requests: how they are asked, run and answered."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Header, Request, Response

from api.core.access import Accessed
from api.core.answers import Json
from api.core.hang_up import hung_up
from api.core.limit_headers import limit_headers, tell_if_it_fails
from api.core.streamed import Framing, Streamed
from api.routers.jobs_body import StraightRoute
from api.routers.jobs_query import key_of, maker_of
from api.services.direct import Patience
from api.services.job_drafts import EndpointDraft
from api.services.openai_calls import OpenAiAnswer
from api.services.said_again import Said
from engine.llm import JsonObject
from engine.records.streams import Stream

DEFAULT_SECONDS = 600.0
"""How long an answer may take: as long as OpenAI's and Anthropic's SDKs wait by default."""

Seconds = Annotated[
    float | None, Header(alias="x-timeout-seconds", ge=1, le=600, description="How long the answer may take.")
]
Priority = Annotated[int, Header(alias="x-priority", ge=1, le=1000, description="Lower goes first, as for jobs.")]


class CallRoute(StraightRoute):
    """A StraightRoute whose requests may also say how urgent they are and how long they may take."""

    unusual = frozenset({*StraightRoute.unusual, b"x-priority", b"x-timeout-seconds"})


async def answered(
    draft: EndpointDraft, request: Request, access: Accessed, key: str | None, seconds: float | None
) -> Response:
    """The answer to a request that is run at once. Raises as OpenAiCalls.run."""
    caller, raw = await access.caller(), await request.body()
    request_key = key_of(key, draft.endpoint, caller, raw)
    wait = DEFAULT_SECONDS if seconds is None else seconds
    patience = Patience(wait, lambda: hung_up(request), for_money=False)
    calls = access.services.openai_calls
    tell_if_it_fails(request.scope, lambda: calls.levels(draft.model))
    answer = await calls.run(draft, maker_of(caller), request_key, patience)
    return Json(answer.body, headers=_headers(answer))


async def streamed(
    endpoint: str,
    asked: JsonObject,
    request: Request,
    access: Accessed,
    *,
    key: str | None,
    framing: Callable[[Stream], Framing],
) -> Response:
    """The answer to a request that is streamed. Raises as StreamService.open_chat."""
    caller, levels, streams = await access.caller(), access.services.openai_calls.levels, access.services.streams
    tell_if_it_fails(request.scope, lambda: levels(asked["model"]))
    request_key = key_of(key, endpoint, caller, await request.body())
    live = await streams.open_chat(endpoint, asked, maker_of(caller), access.services.gate, request_key)
    headers = limit_headers(levels(live.stream.model))
    if isinstance(live, Said):
        headers["Idempotency-Replayed"] = "true"
    return Streamed(live, framing(live.stream), headers=headers)


def _headers(answer: OpenAiAnswer) -> dict[str, str]:
    """Which job it was, how long its calls took, and what is left of the model's limits, in OpenAI's own headers."""
    headers = {"X-Job-Id": answer.job.id, "openai-processing-ms": str(round(answer.job.totals.duration * 1000))}
    headers |= limit_headers(answer.levels)
    if answer.replayed:
        headers["Idempotency-Replayed"] = "true"
    return headers
