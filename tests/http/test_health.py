"""Health over HTTP: contract, section 3."""

import asyncio
import threading
from datetime import datetime
from pathlib import Path

from api.core.gate import THREADS, Gate
from api.services.health import HealthService
from engine.errors import StorageUnavailable
from engine.records.store import Storage
from tests.support.api import Api, running_api
from tests.support.backends import SQLITE, Servers, fresh_database


class Broken:
    """A storage whose ping does what it is told; everything else is the real one's."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.hang: threading.Event | None = None
        self.error: Exception | None = None
        self.entered = threading.Semaphore(0)

    def __getattr__(self, name: str) -> object:
        return getattr(self._storage, name)

    def ping(self) -> None:
        self.entered.release()
        if self.hang is not None:
            self.hang.wait(30)
        if self.error is not None:
            raise self.error


def test_health_says_that_the_service_runs(local_api: Api) -> None:
    """GET /health is 200 with status, service, timestamp and version, without authentication."""
    answer = local_api.http.get("/health")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["service"]) == ("healthy", "metasync-api")
    assert body["version"] == local_api.app.version
    assert datetime.fromisoformat(body["timestamp"]).tzinfo is not None


def test_live_says_alive(local_api: Api) -> None:
    """GET /health/live is 200 with status alive."""
    answer = local_api.http.get("/health/live")
    assert (answer.status_code, answer.json()["status"]) == (200, "alive")


def test_ready_shows_its_checks(api: Api) -> None:
    """GET /health/ready is 200 with the database's check and the providers' one."""
    answer = api.http.get("/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    checks = answer.json()["checks"]
    assert checks["database"] == {"status": "healthy", "database": "metasync-test"}
    assert checks["providers"] == {"status": "healthy", "problems": {}}


def test_ready_is_503_without_a_database(tmp_path: Path, storage_servers: Servers) -> None:
    """A database that cannot be reached makes readiness 503 not_ready, with an error that gives no internals away."""
    with fresh_database(SQLITE, storage_servers, tmp_path) as database:
        broken = Broken(database.open())
        broken.error = StorageUnavailable("no route to host secret-host")
        with running_api(broken) as api:  # type: ignore[arg-type]
            answer = api.http.get("/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "not_ready")
    assert answer.json()["checks"]["database"]["status"] == "unhealthy"
    assert answer.json()["checks"]["database"]["error"]
    assert "secret-host" not in answer.text


def test_live_answers_while_the_database_hangs(tmp_path: Path, storage_servers: Servers) -> None:
    """/health/live and /health answer at once while every thread to the storage waits for a database that hangs."""
    with fresh_database(SQLITE, storage_servers, tmp_path) as database:
        broken = Broken(database.open())
        broken.hang = threading.Event()
        with running_api(broken) as api:  # type: ignore[arg-type]
            waiting = [threading.Thread(target=api.http.get, args=("/health/ready",)) for _ in range(THREADS + 4)]
            for thread in waiting:
                thread.start()
            assert all(broken.entered.acquire(timeout=10) for _ in range(THREADS))
            assert api.http.get("/health/live").status_code == 200
            assert api.http.get("/health").status_code == 200
            broken.hang.set()
            for thread in waiting:
                thread.join(10)


def test_ready_does_not_wait_for_a_database_that_hangs(local_api: Api) -> None:
    """Readiness is judged within a bounded time: no sign of life by then means not ready."""
    hang = threading.Event()
    gate = Gate(local_api.storage.jobs)
    service = HealthService(lambda: hang.wait(30) and None, BrokenPlugIns(), gate, seconds=0.05)
    assert asyncio.run(service.readiness()).database_answers is False
    hang.set()
    gate.close()


class BrokenPlugIns:
    """A registry with a plug-in that could not be loaded."""

    def names(self) -> frozenset[str]:
        return frozenset({"test"})

    def needs_key(self, sdk: str) -> bool:
        return False

    def problems(self) -> dict[str, str]:
        return {"acme": "ImportError: no module named acme"}


def test_ready_reports_broken_plug_ins(tmp_path: Path, storage_servers: Servers) -> None:
    """A provider plug-in that cannot be loaded is named in readiness, and keeps nothing else from working."""
    fresh = fresh_database(SQLITE, storage_servers, tmp_path)
    with fresh as database, running_api(database.open(), registry=BrokenPlugIns()) as api:
        answer = api.http.get("/health/ready")
    assert answer.status_code == 200
    providers = answer.json()["checks"]["providers"]
    assert providers == {"status": "degraded", "problems": {"acme": "ImportError: no module named acme"}}
