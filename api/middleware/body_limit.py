"""No request body above the limit, whether it says its length beforehand or not."""

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.core.problems import problem

_MOST_DIGITS = 20
"""So many are more than any limit; Python refuses to read thousands of them."""


class BodyLimit:
    """ASGI: 413 for bodies of more than `most` bytes; at most that much of one is ever read.

    `larger` has other limits by the paths of routes that take their bodies as a stream.
    """

    def __init__(self, app: ASGIApp, most: int, larger: Mapping[str, int] | None = None) -> None:
        self._app = app
        self._most = most
        self._larger = larger or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._larger.get(scope["path"], self._most)
        text = f"The request body is larger than {most} bytes"
        if _announced(scope) > most:
            headers = {"Connection": "close"}
            await problem(scope, 413, text, headers=headers)(scope, receive, send)
            return
        await self._app(scope, _counted(receive, most, text), send)


def _counted(receive: Receive, most: int, text: str) -> Receive:
    read = 0

    async def counted() -> Message:
        nonlocal read
        message = await receive()
        if message["type"] == "http.request":
            read += len(message.get("body", b""))
            if read > most:
                # The one error that passes through FastAPI's own reading of a body as it is.
                raise HTTPException(413, text, headers={"Connection": "close"})
        return message

    return counted


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:_MOST_DIGITS])
    return 0
