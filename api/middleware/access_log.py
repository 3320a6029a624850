"""One line per request: what was asked, by whom, what came of it, how long it took. Never a header, query or body."""

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CALLER = "metasync.caller"
"""The scope's key under which authentication leaves who called."""

log = structlog.get_logger(__name__)


class AccessLog:
    """ASGI: logs `request` when the response has gone out; status 0 means that none did."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = 0, time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                caller=scope.get(CALLER),
                milliseconds=round((time.perf_counter() - started) * 1000, 2),
            )
