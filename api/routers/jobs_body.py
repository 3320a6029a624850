"""How bodies of jobs are read: one by one without detours, many without holding the event loop up."""

import asyncio
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import Message, Receive

from api.core.access import Access
from api.core.routes import EitherRoute, Handler

_INLINE_BYTES = 16_384
_SLOW_MARK = b"json_schema"


class _ElsewhereRequest(Request):
    """Parses and validates a long body in a thread, so that other requests are answered meanwhile.

    What is not valid is handed on as it came: the route judges it once more, and reports.
    """

    model: type[BaseModel]

    async def json(self) -> Any:
        body = await self.body()
        if len(body) <= _INLINE_BYTES and _SLOW_MARK not in body:
            return orjson.loads(body)
        return await asyncio.to_thread(_validated, body, self.model)


def _validated(body: bytes, model: type[BaseModel]) -> Any:
    value = orjson.loads(body)
    try:
        return model.model_validate(value)
    except ValidationError:
        return value


class LongBodyRoute(EitherRoute):
    """An EitherRoute whose body may take long to judge: thousands of jobs, or a schema."""

    def get_route_handler(self) -> Handler:
        handle = APIRoute.get_route_handler(self)
        model = _model_of(self)

        async def handle_elsewhere(request: Request) -> Response:
            long = _ElsewhereRequest(request.scope, request.receive)
            long.model = model
            return await handle(long)

        return handle_elsewhere


class StraightRoute(LongBodyRoute):
    """A LongBodyRoute that calls its endpoint directly where a request is short, valid and has nothing but its body.

    FastAPI's own way through dependencies takes several times as long as all the rest of such a request. The endpoint
    takes `body`, `request` and `access`; whatever else it takes has a default, and is in the query or in `unusual`.
    """

    unusual = frozenset({b"idempotency-key"})

    def get_route_handler(self) -> Handler:
        handle, model = super().get_route_handler(), _model_of(self)

        async def handle_straight(request: Request) -> Response:
            raw = await request.body()
            body = _plain_body(request, raw, model, self.unusual)
            if body is None:
                return await handle(Request(request.scope, _again(raw, request.receive)))
            response: Response = await self.endpoint(body=body, request=request, access=Access(request))
            return response

        return handle_straight


def _plain_body(request: Request, raw: bytes, model: type[BaseModel], unusual: frozenset[bytes]) -> Any:
    """The valid body of a usual request; None for any other."""
    headers = request.scope["headers"]
    types = [value for name, value in headers if name == b"content-type"]
    usual = types == [b"application/json"] and len(raw) <= _INLINE_BYTES and _SLOW_MARK not in raw
    if not usual or request.scope["query_string"] or any(name in unusual for name, _ in headers):
        return None
    try:
        return model.model_validate(orjson.loads(raw))
    except (ValidationError, orjson.JSONDecodeError):
        return None


def _again(body: bytes, receive: Receive) -> Receive:
    """`receive` with the body, which was read already, in front."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _model_of(route: APIRoute) -> type[BaseModel]:
    model = route.body_field.field_info.annotation if route.body_field is not None else None
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError(f"{route.path} needs one model as its body")
    return model
