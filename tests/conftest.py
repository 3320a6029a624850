"""Fixtures for everybody: storages of every back-end."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from engine.records.store import Storage
from tests.support.backends import Database, Servers, chosen, fresh_database

# A database behind an example makes its time vary; the number of examples is what bounds a test here.
settings.register_profile(
    "metasync", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("metasync")


@pytest.fixture(scope="session")
def storage_servers() -> Iterator[Servers]:
    """MongoDB servers, started when first needed."""
    servers = Servers()
    yield servers
    servers.close()


@pytest.fixture(params=chosen())
def backend(request: pytest.FixtureRequest) -> str:
    """The name of a storage back-end; a test that uses it runs on each of them."""
    return str(request.param)


@pytest.fixture
def database(backend: str, storage_servers: Servers, tmp_path: Path) -> Iterator[Database]:
    """A fresh database on each back-end, to be opened as often as a test likes."""
    with fresh_database(backend, storage_servers, tmp_path) as fresh:
        yield fresh


@pytest.fixture
def storage(database: Database) -> Storage:
    """An open storage on a fresh database, on each back-end."""
    return database.open()
