"""No request body above the limit, whether it says its length beforehand or not."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.core.problems import problem

_MOST_DIGITS = 20
"""So many are more than any limit; Python refuses to read thousands of them."""


class BodyLimit:
    """ASGI: 413 for bodies of more than `most` bytes; at most that much of one is ever read."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._text = f"The request body is larger than {most} bytes"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _announced(scope) > self._most:
            headers = {"Connection": "close"}
            await problem(scope, 413, self._text, headers=headers)(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > self._most:
                    # The one error that passes through FastAPI's own reading of a body as it is.
                    raise HTTPException(413, self._text, headers={"Connection": "close"})
            return message

        return counted


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:_MOST_DIGITS])
    return 0
