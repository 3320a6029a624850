"""How the service starts, refuses to start, and is stopped before it has anything to do: real processes.

That all missing settings are named at once is shown with the image, in tests/architecture/test_deployment.py; that what
the banner says to type works, in test_demo.py.
"""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.service import ROOT, Service, start_service
from tests.support.backends import Database, own_mongod
from tests.support.customer import serving
from tests.support.mongod import free_port
from tests.support.service import Replica, fleet, one_of_each
from tests.support.waiting import eventually

USER, PASSWORD = "someuser", "s3cret-of-the-database"
SOON = 8.0
"""For a service with nothing to finish; far below DRAIN_SECONDS."""


@contextmanager
def a_replica(url: str, folder: Path) -> Iterator[Replica]:
    """One that was not started yet, and is gone when the block ends."""
    with fleet(url, "metasync-start", folder) as replicas:
        yield replicas.add()


def nobodys_mongodb() -> str:
    """The URL of a MongoDB that is not there, and is not waited for long."""
    return f"mongodb://{USER}:{PASSWORD}@127.0.0.1:{free_port()}/?timeoutMS=100"


def refusal(replica: Replica) -> str:
    """The last line of a start that fails, as it should: exit code 1, and nothing that a person cannot read."""
    replica.launch()
    assert replica.exit_code() == 1, replica.tail()
    assert "Traceback" not in replica.tail()
    return replica.tail().splitlines()[-1]


def test_a_taken_port_is_told_before_the_database_is_touched(tmp_path: Path) -> None:
    """The message names address and port and says what to do; no database file is made for a service that cannot be."""
    with socket.create_server(("127.0.0.1", 0)) as other, a_replica(f"sqlite:///{tmp_path}/new.db", tmp_path) as late:
        late.port = other.getsockname()[1]
        assert refusal(late) == (
            f"Metasync cannot listen on 127.0.0.1 port {late.port}: the port is taken. "
            "Stop the program that uses it, or choose another one with PORT or --port."
        )
    assert list(tmp_path.glob("*.db*")) == []


def test_an_address_of_another_machine_is_told(tmp_path: Path) -> None:
    """Where the address is what is wrong, the message names HOST and does not blame another program."""
    with fleet(f"sqlite:///{tmp_path}/new.db", "", tmp_path, host="192.0.2.1") as replicas:
        told = refusal(replicas.add())
    assert told.startswith("Metasync cannot listen on 192.0.2.1 port 0: ")
    assert "HOST or --host" in told
    assert "Stop the program" not in told


def test_a_database_that_stays_away_is_told(tmp_path: Path) -> None:
    """After some attempts the start fails; the message names the setting and the host, and no line of the log holds
    the user or the password of the URL."""
    url = nobodys_mongodb()
    with a_replica(url, tmp_path) as replica:
        told = refusal(replica)
        away = replica.events("database_away")
        shown = replica.tail()
    assert told.startswith("Metasync cannot start: the database cannot be reached")
    assert told.endswith(f"Check DB_CONNECTION_STRING, which names {url.partition('@')[2].partition('/')[0]}.")
    assert [event["attempt"] for event in away] == list(range(1, away[0]["of"]))
    assert PASSWORD not in shown
    assert USER not in shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_the_waiting_for_a_database(number: signal.Signals, tmp_path: Path) -> None:
    """A supervisor's stop or a Ctrl-C while the database is awaited ends the service at once: 0, and no traceback."""
    with a_replica(nobodys_mongodb(), tmp_path) as replica:
        replica.launch()
        replica.wait_for("database_away")
        asked_at = time.monotonic()
        os.kill(replica.pid, number)
        assert replica.exit_code() == 0
        assert time.monotonic() - asked_at < SOON
        assert "Traceback" not in replica.tail()


def test_a_database_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    """A service that was started before its MongoDB comes up with it."""
    with own_mongod() as server:
        server.kill()
        with a_replica(f"{server.url}?timeoutMS=1000", tmp_path) as replica:
            replica.launch()
            replica.wait_for("database_away")
            server.restart()
            assert replica.wait_up().http.get("/health/ready").status_code == 200


@contextmanager
def development(folder: Path) -> Iterator[tuple[Service, str]]:
    """A service in development mode that is up, and all that it has shown until then."""
    service = start_service(folder, os.environ)
    try:
        service.wait_until_ready()
        log = folder / "service.log"
        yield service, eventually(lambda: _with_banner(log.read_text(encoding="utf-8")), what="the banner")
    finally:
        service.stop()


def _with_banner(shown: str) -> str:
    return shown if "/clients" in shown else ""


def test_development_mode_starts_from_nothing_and_again(tmp_path: Path) -> None:
    """With no setting at all the service comes up, keeps its secrets from others, and shows where it is, where the
    admin key is and what to type, but no secret; the next start has the same secrets and says the same."""
    with development(tmp_path) as (first, shown):
        kept = tmp_path / ".metasync" / "secrets.env"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
        assert f"Metasync is up:  {first.url} " in shown
        assert "ADMIN_API_KEY in .metasync/secrets.env" in shown
        assert f"curl -X POST {first.url}/clients" in shown
        assert not any(secret in shown for secret in first.secrets.values())
        secrets = first.secrets
    with development(tmp_path) as (second, shown):
        assert second.secrets == secrets
        assert f"Metasync is up:  {second.url} " in shown
        assert not any(secret in shown for secret in secrets.values())


@pytest.mark.parametrize("backend", one_of_each(), indirect=True)
def test_sigterm_while_idle(database: Database, tmp_path: Path) -> None:
    """A service whose workers wait for jobs ends at once on SIGTERM, with 0, and leaves no job and no worker leased."""
    with serving(database, tmp_path) as (customer, [replica]):
        customer.employ(replica)
        eventually(lambda: [worker.lease for worker in customer.storage.workers.running()] != [None], what="a lease")
        done = customer.post(replica, "done")
        customer.wait()
        asked_at = time.monotonic()
        replica.terminate()
        assert replica.exit_code() == 0
        assert time.monotonic() - asked_at < SOON
        assert [job.lease for job in customer.jobs(done)] == [None]
        assert [worker.lease for worker in customer.storage.workers.running()] == [None]
        assert "Traceback" not in replica.tail()


def test_a_start_imports_no_vendors_sdk(tmp_path: Path) -> None:
    """The whole service, built on SQLite, started and ended, has loaded neither a vendor's SDK nor MongoDB's driver:
    they come with the first call, or never."""
    program = (
        "import asyncio, json, sys, main_app\n"
        "app = main_app.create_app(main_app.load_settings(['--dev']))\n"
        "async def run():\n"
        "    async with app.router.lifespan_context(app): pass\n"
        "asyncio.run(run())\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DB_CONNECTION_STRING": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = set(json.loads(ended.stdout.splitlines()[-1]))
    assert {"fastapi", "llm_workers.pool", "llm_workers.providers.registry"} <= loaded
    assert not loaded & {"openai", "anthropic", "google.genai", "pymongo", "bson"}
