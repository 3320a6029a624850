"""The one table that turns errors into HTTP, walked along an error's ancestors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.core.answers import Json
from api.core.docs import DocumentationLocked
from api.core.limit_headers import limits_told
from api.core.openai_failures import Unanswered, of_provider_error
from api.core.problems import Told, is_openai, problem
from api.core.unprocessable import KeyReused, Unprocessable
from api.services.files import TooLarge
from engine.errors import (
    BudgetExhausted,
    Forbidden,
    Interrupted,
    InvalidField,
    LeaseLost,
    MetasyncError,
    NotFound,
    Refused,
    StorageUnavailable,
    TooManyAtOnce,
    Unauthenticated,
    UnknownReference,
)
from engine.llm import ProviderError, ProviderTimeout, RateLimited, UnsupportedParameter

MOST_PROBLEMS = 100
LONGEST_INPUT = 2000
LONGEST_PLACE = 200
LONGEST_WAIT_SECONDS = 120
"""A failed validation names at most so many problems, shows at most so many bytes of each input, and of each name on
the way to it. OpenAI's SDK does not try again at all where it is asked to wait for longer than LONGEST_WAIT_SECONDS."""

_NOTHING_MORE = Told()

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """`detail` None shows the error's own text; the texts of errors with a fixed detail are for the log alone.

    `told` is what OpenAI's body says beside the text, `openai_status` the status where OpenAI's API has another one,
    `openai_detail` the text where it has to be another one for clients that are made for it.
    """

    status: int
    detail: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    told: Told = _NOTHING_MORE
    openai_status: int | None = None
    openai_detail: str | None = None


TABLE: dict[type[MetasyncError], Answer] = {
    NotFound: Answer(404, told=Told("not_found_error", "not_found")),
    Refused: Answer(400),
    InvalidField: Answer(400, told=Told(code="invalid_value")),
    UnknownReference: Answer(400, told=Told("not_found_error", "not_found"), openai_status=404),
    DocumentationLocked: Answer(401, headers={"WWW-Authenticate": 'Basic realm="Documentation"'}),
    Unauthenticated: Answer(
        401,
        told=Told(code="invalid_api_key"),
        openai_detail="No valid API key: send the key of a client as `Authorization: Bearer <key>` or `x-api-key: "
        "<key>`, which is what an SDK does with its api_key",
    ),
    Forbidden: Answer(403),
    Unprocessable: Answer(422, told=Told(code="invalid_value"), openai_status=400),
    KeyReused: Answer(422, told=Told(code="idempotency_key_reused", param="Idempotency-Key")),
    TooLarge: Answer(413, headers={"Connection": "close"}, told=Told(code="request_too_large")),
    LeaseLost: Answer(409, told=Told(code="conflict")),
    BudgetExhausted: Answer(
        429,
        headers={"x-should-retry": "false"},
        told=Told("insufficient_quota", "project_spend_limit_exceeded"),
    ),
    Interrupted: Answer(503),
    TooManyAtOnce: Answer(503, told=Told(code="overloaded")),
    StorageUnavailable: Answer(503, "The database is not available at the moment, try again later"),
    Unanswered: Answer(502),
    UnsupportedParameter: Answer(400, told=Told(code="unsupported_parameter")),
    RateLimited: Answer(429, told=Told(code="rate_limit_exceeded")),
    ProviderTimeout: Answer(504),
    ProviderError: Answer(502),
    MetasyncError: Answer(500, "Internal server error"),
}


def answer_to(error: MetasyncError) -> Answer:
    """The table's row for the error's class or the nearest of its ancestors."""
    return next(TABLE[ancestor] for ancestor in type(error).__mro__ if ancestor in TABLE)


def register(app: FastAPI) -> None:
    """Makes `app` answer errors by the table."""
    app.add_exception_handler(MetasyncError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


def openai_answer(error: MetasyncError) -> tuple[int, str, Told]:
    """Status, text and the rest of what OpenAI's body says of an error."""
    answer = answer_to(error)
    told = answer.told
    if isinstance(error, ProviderError):
        error = of_provider_error(error)
    if isinstance(error, Unanswered):
        return error.status, str(error), error.told
    if isinstance(error, UnknownReference):
        code = "model_not_found" if error.field == "model" else told.code
        told = Told(told.kind, code, error.field)
    elif isinstance(error, InvalidField):
        told = Told(told.kind, told.code, error.field)
    return answer.openai_status or answer.status, answer.openai_detail or answer.detail or str(error), told


async def _on_error(request: Request, error: Exception) -> Json:
    assert isinstance(error, MetasyncError)
    answer = answer_to(error)
    shown = openai_answer(error)[0] if is_openai(request.scope) else answer.status
    if shown >= 500:
        log.error("request_failed", code=error.code, reason=str(error), exc_info=answer.status == 500)
    headers = dict(answer.headers)
    seconds = _wait(error)
    if not is_openai(request.scope):
        if seconds is not None:
            headers["Retry-After"] = str(max(1, round(seconds)))
        return problem(request.scope, answer.status, _detail(error, answer), headers=headers)
    if seconds is not None:
        headers["Retry-After"] = str(min(max(1, round(seconds)), LONGEST_WAIT_SECONDS))
    headers |= limits_told(request.scope)
    if isinstance(error, Unanswered) and not error.again:
        headers["x-should-retry"] = "false"
    status, text, told = openai_answer(error)
    detail = _detail(error, answer) if isinstance(error, Unprocessable) else text
    return problem(request.scope, status, detail, headers=headers, told=told)


def _wait(error: MetasyncError) -> float | None:
    """In how many seconds asking again is worth its while, where that is known."""
    if isinstance(error, (StorageUnavailable, TooManyAtOnce, Unanswered)):
        return error.retry_after
    if isinstance(error, RateLimited) and error.retry_after is not None:
        return error.retry_after.total_seconds()
    return None


def _detail(error: MetasyncError, answer: Answer) -> Any:
    if isinstance(error, Unprocessable):
        return [_shown({"type": "value_error", "loc": error.loc, "msg": str(error), "input": error.value})]
    return answer.detail or str(error)


async def _on_invalid(request: Request, error: Exception) -> Json:
    assert isinstance(error, RequestValidationError)
    shown = [_shown(each) for each in error.errors()[:MOST_PROBLEMS]]
    if is_openai(request.scope):
        return problem(request.scope, 400, shown, told=Told(code="invalid_value"))
    return problem(request.scope, 422, shown)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if not is_openai(request.scope):
        return await http_exception_handler(request, error)
    text = f"Unknown request URL: {request.method} {request.url.path}" if error.status_code == 404 else error.detail
    return problem(request.scope, error.status_code, text, headers=error.headers)


def _shown(invalid: Mapping[str, Any]) -> dict[str, Any]:
    """A validation's problem as JSON can carry it: its input cut where it is long, bytes or too deep."""
    return {
        "type": invalid["type"],
        "loc": [part[:LONGEST_PLACE] if isinstance(part, str) else part for part in invalid["loc"]],
        "msg": invalid["msg"],
        "input": _shown_input(invalid.get("input")),
    }


def _shown_input(value: Any) -> Any:
    if isinstance(value, bytes):
        return value[:LONGEST_INPUT].decode("utf-8", "replace")
    try:
        orjson.dumps([[[value]]], default=str, option=orjson.OPT_NON_STR_KEYS)  # as deep as the answer nests it
        text = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return None
    return value if len(text) <= LONGEST_INPUT else text[:LONGEST_INPUT].decode("utf-8", "ignore")


class UnhandledErrors:
    """ASGI: what nobody foresaw becomes a 500 without internals; the log has it all."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            if scope["type"] != "http" or started:
                raise
            log.exception("request_crashed")
            await problem(scope, 500, "Internal server error")(scope, receive, send)
