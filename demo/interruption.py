"""Ctrl-C and SIGTERM: they end the demo wherever it is, except between making something and the duty to undo it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupted(KeyboardInterrupt):
    """A signal came. CPython remembers a plain KeyboardInterrupt that has left an exec(), as in an import,
    and ends a `python -m` that handled it as if it had not: by the signal, whatever the exit code."""


class Interruption:
    """From `take_over` on a signal is kept for `raised`, where the first one raises Interrupted, once."""

    def __init__(self) -> None:
        self._came = False
        self._open = False
        self._hurry: Callable[[], None] | None = None

    def take_over(self) -> None:
        """Handles SIGINT and SIGTERM for the rest of this process."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    @contextmanager
    def raised(self, hurry: Callable[[], None]) -> Iterator[None]:
        """A signal that came before the block or comes in it raises Interrupted; each later one calls `hurry`."""
        self._hurry = hurry
        try:
            self._open = not self._came
            if self._came:
                raise Interrupted
            yield
        finally:
            self._open = False

    def _on_signal(self, *_: object) -> None:
        self._came = True
        if self._open:
            self._open = False
            raise Interrupted
        if self._hurry:
            self._hurry()
