"""The one table that turns errors into HTTP."""

import asyncio
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from api.core.unprocessable import KeyReused, Unprocessable
from api.middleware import errors
from api.middleware.access_log import AccessLog
from api.middleware.correlation import CorrelationId
from engine import llm
from engine.errors import (
    BudgetExhausted,
    Duplicate,
    Forbidden,
    InvalidField,
    LeaseLost,
    MetasyncError,
    NotFound,
    Refused,
    StorageCorrupt,
    StorageError,
    StorageUnavailable,
    TransitionRefused,
    Unauthenticated,
    UnknownReference,
)

STATUSES: list[tuple[MetasyncError, int]] = [
    (NotFound("Job", "x"), 404),
    (Refused("no"), 400),
    (TransitionRefused("no transition"), 400),
    (UnknownReference("prompt", "x"), 400),
    (Duplicate("taken"), 400),
    (InvalidField("name", "odd"), 400),
    (Unauthenticated("who"), 401),
    (Forbidden("no"), 403),
    (KeyReused("again"), 422),
    (LeaseLost("gone"), 409),
    (BudgetExhausted("used up"), 429),
    (Unprocessable(("body", "x"), "odd", 1), 422),
    (StorageUnavailable("down"), 503),
    (StorageCorrupt("broken"), 500),
    (StorageError("broken"), 500),
    (llm.TransientProviderError("later"), 502),
    (MetasyncError("anything"), 500),
]


def descendants(cls: type[MetasyncError]) -> Iterator[type[MetasyncError]]:
    for child in cls.__subclasses__():
        yield child
        yield from descendants(child)


@pytest.mark.parametrize(("error", "status"), STATUSES, ids=lambda value: type(value).__name__)
def test_each_error_has_its_status(error: MetasyncError, status: int) -> None:
    """An error answers with the status of its class or of the nearest ancestor in the table."""
    assert errors.answer_to(error).status == status


def test_every_error_of_the_tree_finds_a_row() -> None:
    """No class of the tree falls through the table."""
    for cls in descendants(MetasyncError):
        assert any(ancestor in errors.TABLE for ancestor in cls.__mro__)


@pytest.fixture
def http() -> Iterator[TestClient]:
    """An application whose routes fail in every way."""
    app = FastAPI(
        middleware=[Middleware(CorrelationId), Middleware(AccessLog), Middleware(errors.UnhandledErrors)],
    )
    errors.register(app)
    failures: dict[str, Exception] = {
        "known": NotFound("Job", "x"),
        "away": StorageUnavailable("secret-host refused", retry_after=7.4),
        "corrupt": StorageCorrupt("secret-document"),
        "bug": RuntimeError("secret-internals"),
    }

    @app.get("/{how}")
    async def fail(how: str) -> None:
        raise failures[how]

    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def test_a_known_error_shows_its_text(http: TestClient) -> None:
    """A refusal answers `{"detail": "<text>"}`."""
    answer = http.get("/known")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Job not found: x"})


def test_an_outage_is_503_with_retry_after(http: TestClient) -> None:
    """A lost database is 503, says when to come back in whole seconds, and names no host."""
    answer = http.get("/away")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    assert "secret" not in answer.text


@pytest.mark.parametrize("how", ["corrupt", "bug", "missing-key"])
def test_an_unforeseen_error_is_500_without_internals(http: TestClient, how: str) -> None:
    """Bugs and corrupt documents are 500 with a plain text and a correlation id; the server lives on."""
    answer = http.get(f"/{how}")
    assert (answer.status_code, answer.json()) == (500, {"detail": "Internal server error"})
    assert "X-Correlation-ID" in answer.headers


def test_an_error_after_the_answer_began_ends_the_connection() -> None:
    """Nothing is added to an answer that is already on its way: the server must cut it."""

    async def broken(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        raise RuntimeError("in the middle")

    async def nothing(*_: object) -> None:
        return None

    with pytest.raises(RuntimeError, match="in the middle"):
        asyncio.run(errors.UnhandledErrors(broken)({"type": "http"}, nothing, nothing))  # type: ignore[arg-type]
