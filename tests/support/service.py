"""The service as real processes in production mode, to be killed, frozen and started again by tests."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from config import Settings
from tests.support.api import ADMIN_KEY, PEPPER
from tests.support.backends import MONGO, MONGO_REPLICA, SQLITE, chosen
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
UP_WITHIN = 40.0
ENDS_WITHIN = 40.0
TAIL_LINES = 20
PROVIDER_KEY = "PROVIDER_KEY_OF_THE_TESTS"
ENVIRONMENT = {
    "DOCS_SECRET": "the-docs-secret-of-the-tests",
    "API_KEY_PEPPER": PEPPER,
    "ADMIN_API_KEY": ADMIN_KEY,
    "HOST": "127.0.0.1",
    "LOG_LEVEL": "INFO",
    "LOG_FORMAT": "json",
    PROVIDER_KEY: "sk-of-no-worth",
}
_NOT_PASSED_ON = tuple(name.upper() for name in Settings.model_fields)


def one_of_each() -> tuple[str, ...]:
    """SQLite and one MongoDB, as far as they are chosen: what a process survives, it survives on either kind alike."""
    sqlite = [name for name in chosen() if name == SQLITE]
    mongo = [name for name in (MONGO, MONGO_REPLICA) if name in chosen()]
    return (*sqlite, *mongo[:1])


class Replica:
    """One `python main_app.py` in a process group of its own. Started again, it has the same port.

    `settings` are environment variables in lower case. `http` is a client of the process that runs.
    """

    def __init__(self, url: str, database: str, log: Path, **settings: object) -> None:
        self._log = log
        self._settings = {name.upper(): str(value) for name, value in settings.items()}
        self._settings |= {"DB_CONNECTION_STRING": url, "DB_NAME": database}
        self._process: subprocess.Popen[bytes] | None = None
        self._log_starts_at = 0
        self.port = 0
        self.http: httpx.Client

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def launch(self) -> None:
        """Start it; `wait_up` says when it is there."""
        kept = {
            name: value for name, value in os.environ.items() if not name.upper().endswith(("PROXY", *_NOT_PASSED_ON))
        }
        self._log.touch()
        self._log_starts_at = self._log.stat().st_size
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "main_app.py"), "--port", str(self.port)],
                cwd=self._log.parent,
                env={**kept, **ENVIRONMENT, **self._settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_up(self) -> "Replica":
        announced = eventually(self._announcement, within=UP_WITHIN, what="the service is up")
        self.port = announced["port"]
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20, trust_env=False)
        return self

    def start(self) -> "Replica":
        self.launch()
        return self.wait_up()

    def _announcement(self) -> dict[str, Any] | None:
        assert self._process is not None
        code = self._process.poll()
        assert code is None, f"the service ended with exit code {code}:\n{self.tail()}"
        return next(iter(self.events("service_up")), None)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of that name which the process that runs, or ran last, has logged so far."""
        with self._log.open("rb") as log:
            log.seek(self._log_starts_at)
            lines = [line for line in log.read().split(b"\n")[:-1] if line.startswith(b"{")]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def wait_for(self, name: str) -> None:
        """Until it has logged a line of that name."""
        eventually(lambda: self.events(name), within=30, what=f"{name} in the log")

    def tail(self) -> str:
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])

    def kill(self) -> None:
        """SIGKILL: nothing is finished, nothing is given back. Harmless where it has ended."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self.exit_code()

    def freeze(self) -> None:
        """SIGSTOP: leases run out, connections stay open, and it does not know."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, to the service alone, as a supervisor does."""
        os.kill(self.pid, signal.SIGTERM)

    def exit_code(self) -> int:
        """Waits for the end."""
        assert self._process is not None
        code = self._process.wait(ENDS_WITHIN)
        if hasattr(self, "http"):
            self.http.close()
        return code

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)


class Fleet:
    """Replicas on one database. `settings` hold for all of them."""

    def __init__(self, url: str, database: str, folder: Path, **settings: object) -> None:
        self._where = (url, database)
        self._folder = folder
        self._settings = settings
        self.replicas: list[Replica] = []

    def launch(self, count: int) -> list[Replica]:
        """Replicas that are up, started at the same time."""
        made = [self.add() for _ in range(count)]
        for replica in made:
            replica.launch()
        return [replica.wait_up() for replica in made]

    def add(self) -> Replica:
        """A replica that was not started yet."""
        log = self._folder / f"replica-{len(self.replicas) + 1}.log"
        replica = Replica(*self._where, log, **self._settings)
        self.replicas.append(replica)
        return replica


@contextmanager
def fleet(url: str, database: str, folder: Path, **settings: object) -> Iterator[Fleet]:
    """No replica yet; all that are launched are gone when the block ends, whatever became of them."""
    made = Fleet(url, database, folder, **settings)
    try:
        yield made
    finally:
        for replica in made.replicas:
            replica.kill()
