"""Waiting for what other threads and processes do, bounded."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_never = threading.Event


def eventually(check: Callable[[], T], *, within: float = 15.0, every: float = 0.02, what: str = "") -> T:
    """The first true answer of `check`; AssertionError with the last one after `within` seconds."""
    end = time.monotonic() + within
    pause = _never()
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {within} s: {what or check} (last answer: {answer!r})")
        pause.wait(every)
