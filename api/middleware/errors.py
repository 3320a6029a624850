"""The one table that turns errors into HTTP, walked along an error's ancestors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.core.answers import Json
from api.core.docs import DocumentationLocked
from api.core.unprocessable import Unprocessable
from engine.errors import (
    BudgetExhausted,
    Forbidden,
    Interrupted,
    LeaseLost,
    MetasyncError,
    NotFound,
    Refused,
    StorageUnavailable,
    TooManyAtOnce,
    Unauthenticated,
)
from engine.llm import ProviderError, ProviderTimeout, RateLimited

MOST_PROBLEMS = 100
LONGEST_INPUT = 2000
LONGEST_PLACE = 200
"""A failed validation names at most so many problems, shows at most so many bytes of each input, and of each name on
the way to it."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """`detail` None shows the error's own text; the texts of errors with a fixed detail are for the log alone."""

    status: int
    detail: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


TABLE: dict[type[MetasyncError], Answer] = {
    NotFound: Answer(404),
    Refused: Answer(400),
    DocumentationLocked: Answer(401, headers={"WWW-Authenticate": 'Basic realm="Documentation"'}),
    Unauthenticated: Answer(401),
    Forbidden: Answer(403),
    Unprocessable: Answer(422),
    LeaseLost: Answer(409),
    BudgetExhausted: Answer(429, headers={"x-should-retry": "false"}),
    Interrupted: Answer(503),
    TooManyAtOnce: Answer(503),
    StorageUnavailable: Answer(503, "The database is not available at the moment, try again later"),
    RateLimited: Answer(429),
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


async def _on_error(_request: Request, error: Exception) -> Json:
    assert isinstance(error, MetasyncError)
    answer = answer_to(error)
    if answer.status >= 500:
        log.error("request_failed", code=error.code, reason=str(error), exc_info=answer.status == 500)
    headers = dict(answer.headers)
    seconds = _wait(error)
    if seconds is not None:
        headers["Retry-After"] = str(max(1, round(seconds)))
    return Json({"detail": _detail(error, answer)}, status_code=answer.status, headers=headers)


def _wait(error: MetasyncError) -> float | None:
    """In how many seconds asking again is worth its while, where that is known."""
    if isinstance(error, (StorageUnavailable, TooManyAtOnce)):
        return error.retry_after
    if isinstance(error, RateLimited) and error.retry_after is not None:
        return error.retry_after.total_seconds()
    return None


def _detail(error: MetasyncError, answer: Answer) -> Any:
    if isinstance(error, Unprocessable):
        return [_shown({"type": "value_error", "loc": error.loc, "msg": str(error), "input": error.value})]
    return answer.detail or str(error)


async def _on_invalid(_request: Request, error: Exception) -> Json:
    assert isinstance(error, RequestValidationError)
    return Json({"detail": [_shown(problem) for problem in error.errors()[:MOST_PROBLEMS]]}, status_code=422)


def _shown(problem: Mapping[str, Any]) -> dict[str, Any]:
    """`problem` as JSON can carry it: its input cut where it is long, bytes or too deep."""
    return {
        "type": problem["type"],
        "loc": [part[:LONGEST_PLACE] if isinstance(part, str) else part for part in problem["loc"]],
        "msg": problem["msg"],
        "input": _shown_input(problem.get("input")),
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
            await Json({"detail": "Internal server error"}, status_code=500)(scope, receive, send)
