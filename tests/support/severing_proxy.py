"""A TCP proxy that can lose one answer: the request is done, and whoever asked never learns of it."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_CHUNK = 65_536


class SeveringProxy:
    """Forwards connections to a port of this machine. See `lose_answer_to`."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._word: bytes | None = None
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def lose_answer_to(self, word: bytes) -> None:
        """Forward the next request that holds `word`, wait until it is answered, and close instead of answering."""
        with self._lock:
            self._word = word

    def close(self) -> None:
        self._closing.set()
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while not self._closing.is_set():
            readable, _, _ = select.select([self._listener], [], [], 0.1)
            if readable and not self._closing.is_set():
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._forward, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _forward(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target_port)) as server:
            lose = False
            while not self._closing.is_set():
                readable, _, _ = select.select([client, server], [], [], 0.1)
                for source in readable:
                    data = source.recv(_CHUNK)
                    if not data or (lose and source is server):
                        return
                    lose = lose or (source is client and self._takes(data))
                    (server if source is client else client).sendall(data)

    def _takes(self, data: bytes) -> bool:
        with self._lock:
            if self._word is None or self._word not in data:
                return False
            self._word = None
            return True


@contextmanager
def severing_proxy(target_port: int) -> Iterator[SeveringProxy]:
    proxy = SeveringProxy(target_port)
    try:
        yield proxy
    finally:
        proxy.close()
