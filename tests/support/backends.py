"""The storage back-ends that contract tests run on, each with fresh databases.

METASYNC_TEST_BACKENDS chooses (a comma list of sqlite, mongo, mongo-replica; by default all). With
METASYNC_TEST_MONGODB_URL an outside server serves `mongo`; without it mongod comes from its wheel (Linux x86-64).
"""

import os
import platform
import sys
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine.records.store import Storage
from engine.storage.factory import open_storage

if TYPE_CHECKING:
    from pymongo import MongoClient

    from tests.support.mongod import Mongod

SQLITE, MONGO, MONGO_REPLICA = "sqlite", "mongo", "mongo-replica"
ALL = (SQLITE, MONGO, MONGO_REPLICA)
URL_VARIABLE = "METASYNC_TEST_MONGODB_URL"
CHOICE_VARIABLE = "METASYNC_TEST_BACKENDS"


def chosen(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The back-ends to test; an outside server stands for MongoDB however it is set up."""
    text = environment.get(CHOICE_VARIABLE, "")
    if not text:
        return (SQLITE, MONGO) if environment.get(URL_VARIABLE) else ALL
    names = tuple(name.strip() for name in text.split(","))
    unknown = set(names) - set(ALL)
    if unknown:
        raise ValueError(f"{CHOICE_VARIABLE} knows {', '.join(ALL)}, not {', '.join(sorted(unknown))}")
    return names


@contextmanager
def own_mongod(*, replica_set: bool = False) -> Iterator["Mongod"]:
    """A server that the test may kill and freeze. Skips the test only where whoever runs it left MongoDB out, or gave
    an outside server on a machine that has no mongod."""
    from tests.support.mongod import mongod_path, mongod_server

    if not {MONGO, MONGO_REPLICA} & set(chosen()):
        pytest.skip("MongoDB is left out")
    try:
        mongod_path()
    except FileNotFoundError:
        if os.environ.get(URL_VARIABLE):
            pytest.skip("an outside server cannot be killed, and there is no mongod here")
        raise
    with mongod_server(replica_set=replica_set) as server:
        yield server


class Servers:
    """MongoDB servers of one test session, started when first needed, and databases on them, emptied for reuse:
    making the indexes of a new one takes longer than most tests."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._urls: dict[str, str] = {}
        self._free: defaultdict[str, list[str]] = defaultdict(list)

    def url(self, backend: str) -> str:
        """The URL of the server for `backend`, mongo or mongo-replica."""
        if backend not in self._urls:
            self._urls[backend] = os.environ.get(URL_VARIABLE) or self._start(backend)
        return self._urls[backend]

    def _start(self, backend: str) -> str:
        if sys.platform != "linux" or platform.machine() != "x86_64":
            raise RuntimeError(
                f"there is no mongod wheel for this machine: set {URL_VARIABLE} to a server's URL, "
                f"or {CHOICE_VARIABLE}=sqlite to leave MongoDB out"
            )
        from tests.support.mongod import mongod_server

        return self._stack.enter_context(mongod_server(replica_set=backend == MONGO_REPLICA)).url

    @contextmanager
    def empty_database(self, backend: str) -> Iterator[str]:
        """The name of a database for the block that holds no document."""
        url, free = self.url(backend), self._free[backend]
        name = free.pop() if free else self._new_database(url)
        try:
            yield name
        finally:
            with _client(url) as client:
                for collection in client[name].list_collection_names():
                    client[name][collection].delete_many({})
            free.append(name)

    def _new_database(self, url: str) -> str:
        name = new_name()
        self._stack.callback(_drop, url, name)
        return name

    def close(self) -> None:
        self._stack.close()


class Database:
    """One fresh database, which may be opened several times, as several replicas would."""

    def __init__(self, backend: str, url: str, name: str) -> None:
        self.backend = backend
        self.url = url
        self.name = name
        self._stack = ExitStack()

    def open(self) -> Storage:
        """Another connection to the database; closed with it. SQLite does not wait for the disk here."""
        storage = open_storage(self.url, database=self.name, synchronous="NORMAL")
        self._stack.callback(storage.close)
        return storage

    def close(self) -> None:
        self._stack.close()


@contextmanager
def fresh_database(backend: str, servers: Servers, folder: Path) -> Iterator[Database]:
    """A database of its own for the block, empty at first."""
    with ExitStack() as stack:
        if backend == SQLITE:
            name = new_name()
            url = f"sqlite:///{folder / name}.db"
        else:
            name, url = stack.enter_context(servers.empty_database(backend)), servers.url(backend)
        database = Database(backend, url, name)
        stack.callback(database.close)
        yield database


def new_name() -> str:
    return f"metasync-test-{uuid.uuid4().hex[:12]}"


def _client(url: str) -> "MongoClient[dict[str, Any]]":
    import pymongo

    return pymongo.MongoClient(url, serverSelectionTimeoutMS=5000)


def _drop(url: str, name: str) -> None:
    with _client(url) as client:
        client.drop_database(name)
