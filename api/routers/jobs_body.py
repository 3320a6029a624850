"""Bodies of many jobs, read without holding the event loop up."""

import asyncio
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from api.core.routes import EitherRoute, Handler

_INLINE_BYTES = 16_384


class _ElsewhereRequest(Request):
    """Parses and validates a long body in a thread, so that other requests are answered meanwhile.

    What is not valid is handed on as it came: the route judges it once more, and reports.
    """

    model: type[BaseModel]

    async def json(self) -> Any:
        body = await self.body()
        if len(body) <= _INLINE_BYTES:
            return orjson.loads(body)
        return await asyncio.to_thread(_validated, body, self.model)


def _validated(body: bytes, model: type[BaseModel]) -> Any:
    value = orjson.loads(body)
    try:
        return model.model_validate(value)
    except ValidationError:
        return value


class LongBodyRoute(EitherRoute):
    """An EitherRoute whose body may hold thousands of jobs."""

    def get_route_handler(self) -> Handler:
        handle = APIRoute.get_route_handler(self)
        model = self.body_field.field_info.annotation if self.body_field is not None else None
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise TypeError(f"{self.path} needs one model as its body")

        async def handle_elsewhere(request: Request) -> Response:
            long = _ElsewhereRequest(request.scope, request.receive)
            long.model = model
            return await handle(long)

        return handle_elsewhere
