"""Idempotency-Key on POST /jobs and /jobs/batch: fault 22."""

from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from engine.errors import StorageUnavailable
from engine.jobs.queue import JobQuery
from tests.support.api import Api, running_api
from tests.support.backends import Database
from tests.support.jobs_http import Shop, open_shop, together
from utilities.clock import SystemClock

REPLAYED = "Idempotency-Replayed"


@pytest.fixture
def shop(api: Api) -> Shop:
    return open_shop(api)


@pytest.fixture
def local(local_api: Api) -> Shop:
    return open_shop(local_api)


def post(shop: Shop, body: Any, key: str = "key-1", path: str = "/jobs") -> httpx.Response:
    return shop.call("POST", path, body, headers={"Idempotency-Key": key})


def count(shop: Shop) -> int:
    return shop.api.storage.jobs.count(JobQuery())


@pytest.mark.parametrize("path", ["/jobs", "/jobs/batch"])
def test_repeated_request_makes_nothing_new(shop: Shop, path: str) -> None:
    """The same key and body again: the same status and body, marked as a replay, and no further job."""
    body = shop.body() if path == "/jobs" else {"jobs": [shop.body(), shop.body(priority=1)]}
    first, second = post(shop, body, path=path), post(shop, body, path=path)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.content == second.content
    assert REPLAYED not in first.headers
    assert second.headers[REPLAYED] == "true"
    assert count(shop) == (1 if path == "/jobs" else 2)


def test_simultaneous_requests_make_one_job(shop: Shop) -> None:
    """The same request eight times at once: one job, one first answer, identical ones for all."""
    answers = together(8, lambda _: post(shop, shop.body()))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum(REPLAYED not in answer.headers for answer in answers) == 1
    assert count(shop) == 1


def test_simultaneous_batches_over_two_replicas(database: Database) -> None:
    """The same batch through two replicas at once: its jobs exist once."""
    with running_api(database.open()) as one, running_api(database.open()) as two:
        shop = open_shop(one)
        shops = [shop, Shop(two, shop.headers, shop.prompt, shop.model)]
        body = {"jobs": [shop.body(id=str(number)) for number in range(50)]}
        answers = together(6, lambda number: post(shops[number % 2], body, path="/jobs/batch"))
        assert len({answer.content for answer in answers}) == 1
        assert count(shop) == 50


def test_other_body_is_refused(shop: Shop) -> None:
    """The same key with another body is 422 and makes nothing; whether that body is acceptable does not matter."""
    post(shop, shop.body())
    other = post(shop, shop.body(priority=6))
    assert (other.status_code, other.json()["detail"][0]["loc"]) == (422, ["header", "Idempotency-Key"])
    assert post(shop, shop.body(model="nobody")).status_code == 422
    assert post(shop, {"jobs": [shop.body()]}, path="/jobs/batch").status_code == 422
    assert count(shop) == 1


def test_order_of_fields_does_not_matter(local: Shop) -> None:
    """The same JSON written in another order is the same body."""
    body = local.body()
    first, second = post(local, body), post(local, dict(reversed(body.items())))
    assert first.content == second.content


def test_keys_belong_to_their_client(shop: Shop) -> None:
    """Another client's same key stands for another job."""
    other = open_shop(shop.api)
    first, second = post(shop, shop.body()), post(other, other.body())
    assert first.json()["jobId"] != second.json()["jobId"]
    assert REPLAYED not in second.headers


def test_replay_outlives_a_restart(database: Database) -> None:
    """A replica that starts later replays what another one accepted."""
    with running_api(database.open()) as before:
        shop = open_shop(before)
        first = post(shop, shop.body())
    with running_api(database.open()) as after:
        again = post(Shop(after, shop.headers, shop.prompt, shop.model), shop.body())
        assert again.content == first.content
        assert again.headers[REPLAYED] == "true"
        assert after.storage.jobs.count(JobQuery()) == 1


def test_replay_does_not_depend_on_what_happened_since(shop: Shop) -> None:
    """The first answer is replayed although the job was changed and its prompt deleted meanwhile."""
    first = post(shop, shop.body())
    shop.call("PATCH", f"/jobs/{first.json()['jobId']}", {"status": "CANCELED"})
    shop.call("DELETE", f"/prompts/{shop.prompt}")
    again = post(shop, shop.body())
    assert (again.status_code, again.content) == (201, first.content)
    assert shop.get(first.json()["jobId"])["status"] == "CANCELED"
    assert count(shop) == 1


def test_deleted_job_is_not_made_again(shop: Shop) -> None:
    """A replay does not bring back a job that was deleted."""
    first = post(shop, shop.body())
    shop.call("DELETE", f"/jobs/{first.json()['jobId']}")
    assert post(shop, shop.body()).content == first.content
    assert count(shop) == 0


def test_crash_between_reservation_and_jobs_is_finished(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first request died after its key was kept and before its jobs were, the next one makes them."""
    body = {"jobs": [shop.body(), shop.body(priority=9)]}
    with monkeypatch.context() as patch:

        def die(jobs: object) -> None:
            raise StorageUnavailable("gone")

        patch.setattr(shop.api.storage.jobs, "insert", die)
        assert post(shop, body, path="/jobs/batch").status_code == 503
    assert count(shop) == 0
    again = post(shop, body, path="/jobs/batch")
    assert again.status_code == 201
    assert [shop.get(job["jobId"]) for job in again.json()] == again.json()
    assert count(shop) == 2


def test_refused_request_leaves_its_key_free(shop: Shop) -> None:
    """A request that was refused made nothing, so its key may come again with the corrected body."""
    assert post(shop, shop.body(model="nobody")).status_code == 400
    assert post(shop, shop.body()).status_code == 201


class Moved(SystemClock):
    """A clock that is some time ahead."""

    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        return super().now() + self._ahead


@pytest.mark.parametrize(("hours", "jobs"), [(23.9, 1), (24.1, 2)])
def test_keys_are_kept_for_a_day(database: Database, hours: float, jobs: int) -> None:
    """A key stands for its job for 24 hours; afterwards it makes another one."""
    with running_api(database.open()) as today:
        shop = open_shop(today)
        post(shop, shop.body())
    with running_api(database.open(), clock=Moved(timedelta(hours=hours))) as tomorrow:
        post(Shop(tomorrow, shop.headers, shop.prompt, shop.model), shop.body())
        assert tomorrow.storage.jobs.count(JobQuery()) == jobs


@pytest.mark.parametrize("key", ["", " ", "\t", "a\tb", "x" * 256, "caf\u00e9", "a\x7f"])
@pytest.mark.parametrize("path", ["/jobs", "/jobs/batch"])
def test_keys_have_limits(local: Shop, key: str, path: str) -> None:
    """A key is 1 to 255 printable ASCII characters: else 422, and nothing is stored."""
    body = local.body() if path == "/jobs" else {"jobs": [local.body()]}
    headers = {**local.headers, "Idempotency-Key": key.encode("latin-1")}
    answer = local.api.http.post(path, json=body, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 422
    assert count(local) == 0


@pytest.mark.parametrize("key", ["a", "x" * 255, '"quoted"', "a b", "$ne{}", "~!@#%^&*()"])
def test_odd_keys_work(shop: Shop, key: str) -> None:
    """Every printable key is one: it stands for its job and for no other."""
    first, second = post(shop, shop.body(), key=key), post(shop, shop.body(), key=key)
    assert (first.status_code, second.content) == (201, first.content)
    assert count(shop) == 1
