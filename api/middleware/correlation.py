"""A correlation id on every response, and on every log line of its request."""

import re

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from utilities.ids import new_uuid

HEADER = b"x-correlation-id"
_VENDORS_HEADERS = (b"x-request-id", b"request-id")
"""The same for clients made for OpenAI's and for Anthropic's API, which read them."""

_ACCEPTED = re.compile(rb"[A-Za-z0-9._:/+=@~-]{1,128}")


class CorrelationId:
    """ASGI: echoes the caller's id where it has up to 128 harmless characters, else makes a UUID."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identifier = _sent(scope) or new_uuid().encode()

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    (HEADER, identifier),
                    *((name, identifier) for name in _VENDORS_HEADERS),
                ]
            await send(message)

        with structlog.contextvars.bound_contextvars(correlation_id=identifier.decode()):
            await self._app(scope, receive, tagged)


def _sent(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == HEADER:
            return bytes(value) if _ACCEPTED.fullmatch(value) else None
    return None
