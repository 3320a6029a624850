"""A stream under way: between the task that asks the provider and the reader who waits for the pieces."""

import asyncio

from engine.errors import ClientDisconnected, Interrupted, MetasyncError, ServiceStopping
from engine.jobs.job import Call
from engine.llm import JsonObject, PermanentProviderError, Piece
from engine.records.streams import Stream
from llm_workers.providers.chat_chunks import size_of, text_in

_AHEAD = 16
"""Pieces that may wait for their reader."""


class Live:
    """Implements engine.records.control.LiveStream, and is the ledger of its calls.

    `said` are the texts of the pieces, which may be empty in a chat; `characters` are all that came, arguments of tools
    and further choices included. `answer` is the whole of a chat.
    """

    def __init__(self, stream: Stream, began: float) -> None:
        self.stream = stream
        self.began = began
        self.said: list[str] = []
        self.characters = 0
        self.answer: JsonObject | None = None
        self.calls: list[Call] = []
        self.error: MetasyncError | None = None
        self.task: asyncio.Task[None] | None = None
        self._queue: asyncio.Queue[Piece | None] = asyncio.Queue(_AHEAD)
        self._why: Interrupted | None = None
        self._asking = True

    def record(self, call: Call) -> None:
        self.calls.append(call)

    async def next(self) -> Piece | None:
        piece = await self._queue.get()
        if piece is None and self.error is not None:
            raise self.error
        return piece

    def hang_up(self) -> None:
        self.interrupt(ClientDisconnected("whoever asked for it hung up"))
        if not self._asking:
            self._drop()

    def interrupt(self, why: Interrupted) -> None:
        """Ends what is asked for that reason; its record is then written. Later than that it has no effect."""
        if self._asking and self._why is None and self.task is not None:
            self._why = why
            self.task.cancel()

    async def say(self, piece: Piece) -> None:
        self.said.append(text_in(piece))
        self.characters += size_of(piece)
        await self._queue.put(piece)

    def asked(self, error: BaseException | None) -> None:
        """All has been said, or `error` is why not: from now on nothing is interrupted."""
        self._asking = False
        if isinstance(error, asyncio.CancelledError):
            self.error = self._why or ServiceStopping("the process ends")
        elif error is None or isinstance(error, MetasyncError):
            self.error = error
        else:
            self.error = PermanentProviderError(f"the provider failed with {type(error).__name__}")

    async def close(self) -> None:
        """Lets the reader come to the end; where the stream was interrupted, what was not read goes."""
        if isinstance(self.error, Interrupted):
            self._drop()
        await self._queue.put(None)

    def _drop(self) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()
