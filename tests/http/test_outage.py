"""A database that is away, seen over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import StorageUnavailable
from tests.support.api import Api, Headers, model_body, running_api
from tests.support.backends import SQLITE, Servers, fresh_database


class Away:
    """Whatever is asked of it, the database is away."""

    def __getattr__(self, name: str) -> object:
        return self.refuse

    def refuse(self, *_: object, **__: object) -> None:
        raise StorageUnavailable("connection refused by secret-host")


class Switched:
    """A storage that can be taken away: every store of it is the real one or `Away`."""

    def __init__(self, storage: object) -> None:
        self._storage = storage
        self.away = False

    def __getattr__(self, name: str) -> object:
        real = getattr(self._storage, name)
        return real if callable(real) and not hasattr(real, "find") else _Part(self, real)


class _Part:
    def __init__(self, switch: Switched, real: object) -> None:
        self._switch = switch
        self._real = real

    def __getattr__(self, name: str) -> object:
        return getattr(Away() if self._switch.away else self._real, name)


@pytest.fixture
def switched(tmp_path: Path, storage_servers: Servers) -> Iterator[tuple[Api, Switched]]:
    """A replica and the switch of its database."""
    with fresh_database(SQLITE, storage_servers, tmp_path) as database:
        storage = Switched(database.open())
        with running_api(storage) as api:  # type: ignore[arg-type]
            yield api, storage


def test_every_resource_is_503_while_the_database_is_away(switched: tuple[Api, Switched]) -> None:
    """An outage is 503 with Retry-After, never an empty list, a 404 or a 401; afterwards all goes on."""
    api, storage = switched
    client: Headers = api.new_client()
    prompt = {"name": "a", "type": "t", "status": "DRAFT", "prompt": "p"}
    storage.away = True
    for method, path, headers, body in (
        ("GET", "/clients", api.admin, None),
        ("POST", "/clients", api.admin, {"name": "n"}),
        ("GET", "/models", api.admin, None),
        ("POST", "/models", api.admin, model_body()),
        ("GET", "/prompts", client, None),
        ("POST", "/prompts", client, prompt),
        ("GET", "/prompt-flows", api.admin, None),
        ("GET", "/jobs", api.admin, None),
        ("GET", "/workers", api.admin, None),
    ):
        answer = api.http.request(method, path, headers=headers, json=body)
        assert answer.status_code == 503, path
        assert int(answer.headers["Retry-After"]) >= 1
        assert "secret-host" not in answer.text
    storage.away = False
    assert api.http.post("/prompts", headers=client, json=prompt).status_code == 201
