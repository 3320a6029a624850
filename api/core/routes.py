"""The kinds of routes: who may call them, and how their bodies are read."""

from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute

from api.core.authentication import HEADER_PARAMETERS, credentials_of
from api.middleware.access_log import CALLER

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class OrjsonRequest(Request):
    """Reads JSON several times faster than the standard library; what is no JSON raises a JSONDecodeError alike."""

    async def json(self) -> Any:
        return orjson.loads(await self.body())


class OpenRoute(APIRoute):
    """A route anybody may call. `header_names` are the credentials its documentation shows."""

    header_names: tuple[str, ...] = ()

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        shown = [HEADER_PARAMETERS[name] for name in self.header_names]
        if shown:
            options["openapi_extra"] = {**(options.get("openapi_extra") or {}), "parameters": shown}
        # Not every existing client says that its JSON is JSON; no browser can misuse it, as callers carry no cookies.
        super().__init__(path, endpoint, **{**options, "strict_content_type": False})

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handle_orjson(request: Request) -> Response:
            return await handle(OrjsonRequest(request.scope, request.receive))

        return handle_orjson


class EitherRoute(OpenRoute):
    """A route for the administrator and for clients. It authenticates by `Access.caller`: validation goes first."""

    header_names = ("client_id", "client_api_key", "admin_api_key")


class AdminRoute(OpenRoute):
    """A route for the administrator alone, who is authenticated before anything else happens."""

    header_names = ("admin_api_key",)

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handle_authenticated(request: Request) -> Response:
            authenticator = request.app.state.services.authenticator
            caller = authenticator.admin(credentials_of(request.scope["headers"]))
            request.state.caller = caller
            request.scope[CALLER] = caller.by
            return await handle(request)

        return handle_authenticated
