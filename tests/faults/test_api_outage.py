"""A MongoDB server that freezes under a busy API: everybody is told in time, whoever waits for whom."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest

from api.core.gate import THREADS
from engine.errors import StorageUnavailable
from engine.storage.mongo import open_mongo
from tests.support.api import Api, running_api
from tests.support.backends import own_mongod
from tests.support.jobs_http import Shop, open_shop
from tests.support.mongod import Mongod
from tests.support.waiting import eventually

NOTICED_WITHIN = 5.0
CROWD = 3 * THREADS


@pytest.fixture(scope="module")
def server() -> Iterator[Mongod]:
    """A server of this module's own, since it is frozen."""
    with own_mongod() as mongod:
        yield mongod


@pytest.fixture
def api(server: Mongod) -> Iterator[Api]:
    storage = open_mongo(server.url, "metasync-outage")
    try:
        with running_api(storage) as running:
            yield running
    finally:
        storage.close()


def _requests(shop: Shop) -> list[dict[str, Any]]:
    """What a crowd asks for, all of it at the same time: each kind waits for something of its own."""
    admin = shop.api.admin
    kinds: list[dict[str, Any]] = [
        {"method": "GET", "url": "/jobs", "headers": admin},
        {"method": "GET", "url": "/jobs/summary", "headers": admin},
        {"method": "POST", "url": "/jobs", "headers": shop.headers, "json": shop.body()},
        {"method": "GET", "url": "/models", "headers": admin},
    ]
    return [kinds[number % len(kinds)] for number in range(CROWD)]


def _timed(api: Api, request: dict[str, Any]) -> tuple[int, float]:
    started = time.monotonic()
    answer = api.http.request(**request)
    return answer.status_code, time.monotonic() - started


def test_a_crowd_is_told_of_a_frozen_server_in_time(api: Api, server: Mongod) -> None:
    """Three times as many requests as threads, all during a freeze: each is 503 within five seconds, and the service
    is alive meanwhile; after the thaw the same requests succeed."""
    shop = open_shop(api)
    requests = _requests(shop)
    with ThreadPoolExecutor(CROWD) as crowd:
        server.freeze()
        try:
            asked = [crowd.submit(_timed, api, request) for request in requests]
            while wait(asked, 0.5).not_done:
                status, seconds = _timed(api, {"method": "GET", "url": "/health/live"})
                assert (status, seconds < 1.0) == (200, True)
        finally:
            server.thaw()
    ends = [one.result() for one in asked]
    assert {status for status, _ in ends} == {503}
    assert max(seconds for _, seconds in ends) < NOTICED_WITHIN
    eventually(lambda: _answers(api))
    assert {_timed(api, request)[0] for request in requests} <= {200, 201}


def _answers(api: Api) -> bool:
    try:
        api.storage.ping()
    except StorageUnavailable:
        return False
    return True
