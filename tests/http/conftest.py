"""The application over real services on every kind of back-end, its administrator and a client."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.records.store import Storage
from tests.support.api import ADMIN, Api, Headers, running_api
from tests.support.backends import MONGO, MONGO_REPLICA, SQLITE, Servers, chosen, fresh_database


def _distinct() -> tuple[str, ...]:
    """The chosen back-ends, MongoDB once: what HTTP promises does not depend on how its servers are set up."""
    names = chosen()
    return tuple(name for name in names if name != MONGO_REPLICA or MONGO not in names)


@pytest.fixture(params=_distinct())
def backend(request: pytest.FixtureRequest) -> str:
    """The name of a storage back-end; a test that uses it runs on each of them."""
    return str(request.param)


@pytest.fixture
def api(storage: Storage) -> Iterator[Api]:
    """A replica on a fresh storage, on each back-end."""
    with running_api(storage) as running:
        yield running


@pytest.fixture
def local_api(tmp_path: Path, storage_servers: Servers) -> Iterator[Api]:
    """A replica on SQLite alone, for what does not depend on the back-end."""
    with fresh_database(SQLITE, storage_servers, tmp_path) as database, running_api(database.open()) as running:
        yield running


@pytest.fixture
def admin() -> Headers:
    """The administrator's headers."""
    return dict(ADMIN)


@pytest.fixture
def client(api: Api) -> Headers:
    """The headers of a client."""
    return api.new_client()
