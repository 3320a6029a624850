"""The answer that a live stream gives."""

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.errors import MetasyncError
from engine.records.control import LiveStream
from engine.records.streams import Stream

QUIET_SECONDS = 10.0
"""After so long without a piece an event stream shows that it is alive."""


class Framing(Protocol):
    """How pieces, the end and errors are written. `error` None: the answer breaks off, so that no reader takes a part
    of it for the whole. An empty `keep_alive`: nothing is written while nothing comes."""

    media_type: str
    keep_alive: bytes

    def piece(self, piece: Any, /) -> bytes:
        """Of a stream's piece, which is a text, or for a chat a chunk."""
        ...

    def end(self, stream: Stream) -> Sequence[bytes]: ...
    def error(self, error: MetasyncError) -> bytes | None: ...


class Streamed(Response):
    """ASGI: each piece in one write. Headers go out with the first; an error before that is raised, to be answered.

    Writes wait for the reader's connection, and reading the stream waits for the writes. Whoever hangs up ends it.
    """

    def __init__(self, live: LiveStream, framing: Framing, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        own = {"X-Stream-Id": live.stream.id, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(headers={**headers, **own}, media_type=framing.media_type)
        del self.headers["content-length"]
        self._live = live
        self._framing = framing
        self._started = False

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        writing = asyncio.ensure_future(self._write(send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({writing, gone}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                await writing
        finally:
            self._live.hang_up()
            for task in (writing, gone):
                task.cancel()
            await asyncio.wait({writing, gone})

    async def _write(self, send: Send) -> None:
        try:
            while (frame := await self._frame()) is not None:
                await self._send(send, frame)
        except MetasyncError as error:
            if not self._started:
                raise
            frame = self._framing.error(error)
            if frame is None:
                return
            await self._send(send, frame)
        else:
            for frame in self._framing.end(self._live.stream):
                await self._send(send, frame)
            await self._send(send, b"")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _frame(self) -> bytes | None:
        """The next piece's, or a sign of life; None at the end."""
        try:
            async with asyncio.timeout(QUIET_SECONDS if self._framing.keep_alive else None):
                piece = await self._live.next()
        except TimeoutError:
            return self._framing.keep_alive
        return None if piece is None else self._framing.piece(piece)

    async def _send(self, send: Send, frame: bytes) -> None:
        if not self._started:
            self._started = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if frame:
            await send({"type": "http.response.body", "body": frame, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
