"""The HTTP server's own process matters: signals, and what is said when it is up."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

ENDING = (signal.SIGTERM, signal.SIGINT)


class Server(uvicorn.Server):
    """uvicorn with our signals: the first one drains, a second one aborts; both end with 0.

    `announce` is called once it serves.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain: Callable[[], None],
        abort: Callable[[], None],
        announce: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._abort = abort
        self._announce = announce
        self._signals = 0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in ENDING:
            loop.add_signal_handler(number, self._on_signal)
        yield

    def _on_signal(self) -> None:
        self._signals += 1
        if self._signals == 1:
            self._drain()
            self.should_exit = True
        else:
            self._abort()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()
