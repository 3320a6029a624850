"""The service as a process of its own, in development mode, on a fresh folder that is gone afterwards."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
LEASH = Path(__file__).with_name("leash.py")
START_SECONDS = 60.0
STOP_SECONDS = 15.0
TAIL_LINES = 15
LAST_BREATH_SECONDS = 2.0
"""From a connection that broke to the end of the process that broke it."""
_NOT_PASSED_ON = ("DB_CONNECTION_STRING", "DB_NAME", "DOCS_SECRET", "API_KEY_PEPPER", "ADMIN_API_KEY", "HOST", "PORT")


class ServiceDied(Exception):
    """The service did not come up or did not stay up; the text ends with the last lines of its log."""


class Service:
    """A running service: where it is, its administrator's key, and its log."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, port: int) -> None:
        self._process = process
        self._folder = folder
        self.url = f"http://127.0.0.1:{port}"

    @property
    def secrets(self) -> dict[str, str]:
        """The generated secrets by the names of their settings."""
        lines = (self._folder / ".metasync" / "secrets.env").read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines)

    @property
    def admin_key(self) -> str:
        return self.secrets["ADMIN_API_KEY"]

    def wait_until_ready(self) -> None:
        """Raises ServiceDied when the process ends or is not ready within a minute."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.check()
            try:
                if httpx.get(f"{self.url}/health/ready", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise ServiceDied(f"The service was not ready within {START_SECONDS:g} seconds.\n{self.tail()}")

    def check(self, patience: float = 0.0) -> None:
        """Raises ServiceDied if the process has ended, or ends within `patience` seconds."""
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(patience)
            raise ServiceDied(f"The service ended with exit code {code}.\n{self.tail()}")

    def tail(self) -> str:
        """The last lines of the service's log, with a heading."""
        lines = (self._folder / "service.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(["The end of its log:", *(f"  {line}" for line in lines[-TAIL_LINES:] or ["(empty)"])])

    def stop(self) -> None:
        """Asks once, waits, then ends it for certain, also when the waiting is interrupted."""
        self._process.terminate()
        try:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        finally:
            self.kill()
            self._process.wait()
            if self._process.stdin:
                self._process.stdin.close()

    def kill(self) -> None:
        """Ends it at once; `stop`, which may be waiting for it, goes on."""
        self._process.kill()


@contextmanager
def running_service(environ: Mapping[str, str] = os.environ) -> Iterator[Service]:
    """A service on its way up, gone when the block ends, however it ends."""
    folder = Path(tempfile.mkdtemp(prefix="metasync-demo-"))
    try:
        service = start_service(folder, environ)
        try:
            yield service
        finally:
            service.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def start_service(folder: Path, environ: Mapping[str, str]) -> Service:
    """A service that keeps all it has in `folder`, on its way up; the caller stops it.

    A Ctrl-C does not reach it: in the terminal's process group it would end before the caller knows that it should.
    """
    port = _free_port()
    command = [sys.executable, str(LEASH), str(folder), str(ROOT / "main_app.py")]
    command += ["--dev", "--host", "127.0.0.1", "--port", str(port)]
    passed_on = {name: value for name, value in environ.items() if name not in _NOT_PASSED_ON}
    if passed_on.get("OPENAI_BASE_URL"):
        passed_on.setdefault("OPENAI_API_KEY", "none-needed")
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=passed_on,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return Service(process, folder, port)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
