"""Work on hostile data in a process of its own: one that takes too long ends itself, and nothing else waits for it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_ROOT = Path(__file__).resolve().parent.parent
_PASSED_ON = ("PATH", "PYTHONPATH", "SYSTEMROOT", "VIRTUAL_ENV", "LANG", "LC_ALL")
"""What a Python needs of the environment; the rest holds secrets."""
_TRIES = 2


class GaveUp(Exception):
    """The work took too long, or its process did not survive it."""


class Apart:
    """A process that runs `module`, which calls `serve`; started when first needed and again after it has died.

    Requests and answers are lines. Callers from several threads take turns.
    """

    def __init__(self, module: str, seconds: float) -> None:
        self._module = module
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def __call__(self, request: bytes) -> bytes:
        """The answer to a request (no line breaks in either). Raises GaveUp."""
        with self._lock:
            for _ in range(_TRIES):
                began = time.monotonic()
                answer = self._answer(request)
                if answer.endswith(b"\n"):
                    return answer[:-1]
                self._end()
                if self._closed or time.monotonic() - began > self._seconds / 2:
                    break
        raise GaveUp

    def close(self) -> None:
        """End the process and whatever it is doing; whoever waits for that is told that it gave up."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
        with self._lock:
            self._end()

    def _answer(self, request: bytes) -> bytes:
        if self._closed:
            return b""
        process = self._process = self._process or self._started()
        if process.stdin is None or process.stdout is None:
            return b""
        try:
            process.stdin.write(request + b"\n")
            process.stdin.flush()
        except OSError:
            return b""
        return process.stdout.readline()

    def _started(self) -> "subprocess.Popen[bytes]":
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return subprocess.Popen(
            [sys.executable, "-m", self._module, str(self._seconds)],
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def serve(handle: Callable[[bytes], bytes], requests: BinaryIO, answers: BinaryIO, seconds: float) -> None:
    """The process's side: answers line by line until there are no more. A request that takes longer than `seconds`
    ends the process, whatever it is doing, where the system has such an alarm."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for the service to react to, which then ends this one
    alarm = getattr(signal, "setitimer", None)
    for request in requests:
        if alarm is not None:
            alarm(signal.ITIMER_REAL, seconds)
        answer = handle(request)
        if alarm is not None:
            alarm(signal.ITIMER_REAL, 0)
        answers.write(answer + b"\n")
        answers.flush()
