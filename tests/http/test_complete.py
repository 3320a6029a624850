"""POST /complete: a job whose caller waits for its end, on a replica that runs no worker."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.errors import StorageUnavailable
from engine.jobs.outcome import Completed, Settlement
from engine.jobs.queue import JobQuery
from tests.support.api import Api, running_api
from tests.support.backends import SQLITE, Database, Servers, fresh_database
from tests.support.fake_provider import FakeProvider, Rule, fault
from tests.support.jobs_http import Shop, open_shop, together
from tests.support.waiting import eventually

REPLAYED = "Idempotency-Replayed"
AT_ONCE = 5.0
"""Seconds: far less than what callers here say that they would wait."""


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as running:
        yield running


@pytest.fixture
def fake(provider: FakeProvider) -> Iterator[FakeProvider]:
    """The provider as new, whatever the last test had it do."""
    provider.seen.reset()
    yield provider
    provider.release()
    provider.script.clear()


@pytest.fixture
def shop(api: Api, fake: FakeProvider) -> Shop:
    return calling(api, fake)


@pytest.fixture
def local(tmp_path: Path, storage_servers: Servers, fake: FakeProvider) -> Iterator[Shop]:
    with fresh_database(SQLITE, storage_servers, tmp_path) as database, running_api(database.open()) as api:
        yield calling(api, fake)


def calling(api: Api, fake: FakeProvider) -> Shop:
    """A shop whose model `direct` is at the fake provider."""
    shop = open_shop(api)
    api.new_model(name="direct", sdk="vLLM", endpoint=fake.openai_url, key="default")
    return Shop(api, shop.headers, shop.prompt, "direct")


def body(shop: Shop, **fields: Any) -> dict[str, Any]:
    """The least that POST /complete takes."""
    return {"prompts": [shop.prompt], "model": shop.model, "requestData": {"text": "hello"}, **fields}


def complete(shop: Shop, query: str = "", key: str | None = None, **fields: Any) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return shop.call("POST", f"/complete{query}", body(shop, **fields), headers=headers)


def count(shop: Shop) -> int:
    return shop.api.storage.jobs.count(JobQuery())


def test_a_finished_job_is_the_answer(shop: Shop, fake: FakeProvider) -> None:
    """The answer is the stored job, done by one call, with the defaults of a direct one, though no worker exists."""
    answer = complete(shop, clientReference={"order": 5}, id="mine")
    shown = answer.json()
    assert (answer.status_code, shown["status"], shown["operation"], shown["priority"]) == (
        200,
        "PROCESSED",
        "direct",
        1,
    )
    assert shown["responseData"]
    assert "waitsFor" not in shown
    assert shown == shop.get(shown["jobId"])
    assert shown["id"] == "mine"
    assert [(each["outcome"], each["token"]) for each in shown["attempts"]] == [("completed", 1)]
    assert shown["steps"][0]["totalCost"] == shown["processingMetrics"]["totalCost"] > 0
    assert fake.seen.total == 1
    listed = shop.call("GET", "/jobs?operation=direct&clientReference.order=5").json()
    assert [job["jobId"] for job in listed] == [shown["jobId"]]


def test_an_error_is_an_answer(local: Shop, fake: FakeProvider) -> None:
    """A job that ends in error is answered with 200 as well: its status says it, and errorData why."""
    fake.add(Rule(fault("refusal")))
    answer = complete(local)
    shown = answer.json()
    assert (answer.status_code, shown["status"]) == (200, "ERROR_PROCESSING")
    assert shown["errorData"]["errorType"] == "AnswerRefused"


def test_a_transient_failure_is_tried_again(local: Shop, fake: FakeProvider) -> None:
    """What is put back for a moment is claimed again here when it is due: no worker is needed for that either."""
    fake.add(Rule(fault("status", code=503), times=2))
    shown = complete(local).json()
    assert shown["status"] == "PROCESSED"
    assert [each["outcome"] for each in shown["attempts"]] == ["retried", "retried", "completed"]


def test_who_waits_too_long_is_told_where(shop: Shop, fake: FakeProvider) -> None:
    """After `timeout` seconds 202 has the job and where it is; its call goes on and is its only one."""
    fake.hold()
    answer = complete(shop, timeout=0.3)
    shown = answer.json()
    assert (answer.status_code, shown["status"], shown["waitsFor"]["reason"]) == (202, "PROCESSING", "held")
    assert answer.headers["Location"] == f"/jobs/{shown['jobId']}"
    fake.release()
    eventually(lambda: shop.call("GET", answer.headers["Location"]).json()["status"] == "PROCESSED")
    assert fake.seen.total == 1


@pytest.mark.parametrize(
    ("query", "prefer", "timeout"),
    [
        ("", "respond-async", None),
        ("", "handling=lenient, Respond-Async; x=1", 30),
        ("?timeout=0", None, 30),
        ("", None, 0),
    ],
)
def test_who_does_not_want_to_wait(
    local: Shop, fake: FakeProvider, query: str, prefer: str | None, timeout: float | None
) -> None:
    """Whoever prefers it is answered 202 at once: it is an ordinary job, and the answer says that nobody takes it."""
    headers = {} if prefer is None else {"Prefer": prefer}
    answer = local.call("POST", f"/complete{query}", body(local, timeout=timeout), headers=headers)
    shown = answer.json()
    assert (answer.status_code, shown["status"]) == (202, "PENDING")
    assert shown["waitsFor"]["reason"] == "no_worker"
    assert "create one and start it" in shown["waitsFor"]["text"]
    assert f"of operation {shown['operation']} and model {shown['model']}" in shown["waitsFor"]["text"]
    assert answer.headers.get("Preference-Applied") == (prefer and "respond-async")
    assert fake.seen.total == 0
    assert local.get(shown["jobId"])["status"] == "PENDING"


@pytest.mark.parametrize("fields", [{}, {"notBefore": "2099-01-01T00:00:00Z"}])
def test_what_cannot_be_in_time_is_told_at_once(local: Shop, fake: FakeProvider, fields: dict[str, Any]) -> None:
    """A job that will sleep for longer than its caller waits, by its provider's word or its own, is 202 at once."""
    fake.add(Rule(fault("rate_limit", seconds=90)))
    began = time.monotonic()
    answer = complete(local, timeout=60, **fields)
    assert time.monotonic() - began < AT_ONCE
    shown = answer.json()
    assert (answer.status_code, shown["status"]) == (202, "PENDING")
    assert shown["waitsFor"]["reason"] == ("due_later" if fields else "backing_off")
    assert not any(each["charged"] for each in shown["attempts"])


def test_a_budget_that_is_used_up(shop: Shop, fake: FakeProvider) -> None:
    """Without money nothing is called and no attempt charged; the caller waits, is told what for, and the same request
    after a raise attaches to the job and gets its result."""
    path = f"/clients/{shop.client_id}"
    for amount in (0.000001, 1):
        budget = {"amount": amount, "currency": "USD", "period": "total"}
        assert shop.api.http.patch(path, json={"budget": budget}, headers=shop.api.admin).status_code == 200
        shop.api.runs.wallets.tick()
        if amount == 1:
            break
        assert complete(shop).status_code == 200
        waiting = complete(shop, "?timeout=1", key="k")
        assert (waiting.status_code, waiting.json()["waitsFor"]["reason"]) == (202, "budget_exhausted")
        assert [each for each in waiting.json()["attempts"] if each["charged"] or each["outcome"] != "retried"] == []
        assert fake.seen.total == 1
    eventually(lambda: shop.api.runs.wallets.tick() and not shop.api.runs.wallets.shut_clients())
    done = complete(shop, key="k")
    assert (done.status_code, done.json()["status"]) == (200, "PROCESSED")
    assert done.json()["jobId"] == waiting.json()["jobId"]


def test_bad_requests_name_the_field(local: Shop, fake: FakeProvider) -> None:
    """A bad `timeout` is 422 in the body and in the query, a bad reference 400, no credentials 401; nothing is left."""
    for bad in (-1, 601, "soon"):
        assert complete(local, timeout=bad).json()["detail"][0]["loc"] == ["body", "timeout"]
        assert complete(local, f"?timeout={bad}").json()["detail"][0]["loc"] == ["query", "timeout"]
    assert complete(local, model="nobody").status_code == 400
    assert complete(local, evalPrompt=local.prompt).status_code == 400
    assert local.api.http.post("/complete", json=body(local)).status_code == 401
    assert local.as_admin("POST", "/complete", body(local)).status_code == 400
    assert (count(local), fake.seen.total) == (0, 0)


def test_no_more_than_so_many_at_a_time(tmp_path: Path, storage_servers: Servers, fake: FakeProvider) -> None:
    """One direct call too many is 503 with Retry-After and stores nothing, also while those that callers have left are
    still running; one that nobody waits for is taken, and so is the next one when there is room."""
    with (
        fresh_database(SQLITE, storage_servers, tmp_path) as database,
        running_api(database.open(), most_direct=1) as api,
        ThreadPoolExecutor(1) as threads,
    ):
        shop = calling(api, fake)
        fake.hold()
        waiting = threads.submit(complete, shop, timeout=1)
        fake.seen.wait_until(lambda seen: seen.in_flight == 1)
        assert complete(shop).status_code == 503
        assert waiting.result(AT_ONCE).status_code == 202
        refused = complete(shop)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert "1 direct calls" in refused.json()["detail"]
        assert count(shop) == 1
        assert complete(shop, timeout=0).status_code == 202
        fake.release()
        eventually(lambda: complete(shop).status_code == 200)


def test_many_wait_at_no_cost(local: Shop, fake: FakeProvider) -> None:
    """While 64 callers wait for held calls the service answers others at once; then all have their own answers."""
    fake.hold()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(together, 64, lambda number: complete(local, id=str(number)))
        fake.seen.wait_until(lambda seen: seen.in_flight == 64, timeout=30)
        began = time.monotonic()
        assert local.api.http.get("/health/live").status_code == 200
        assert local.call("GET", "/jobs?limit=1").status_code == 200
        assert time.monotonic() - began < 2.0
        fake.release()
        answers = waiting.result(30)
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(int(answer.json()["id"]) for answer in answers) == list(range(64))
    assert fake.seen.total == count(local) == 64


def test_a_repeated_request_has_the_same_job(shop: Shop, fake: FakeProvider) -> None:
    """The same key: while its job runs, all wait for the same call; afterwards its end again; with another body, or
    from another endpoint, 422; deleted, 404."""
    fake.hold()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(together, 4, lambda _: complete(shop, key="k"))
        fake.seen.wait_until(lambda seen: seen.in_flight == 1)
        assert complete(shop, "?timeout=0.1", key="k").status_code == 202
        fake.release()
        answers = waiting.result(20)
    again = complete(shop, key="k")
    assert {answer.status_code for answer in (*answers, again)} == {200}
    assert {answer.content for answer in answers} == {again.content}
    assert sum(REPLAYED not in answer.headers for answer in answers) == 1
    assert again.headers[REPLAYED] == "true"
    assert fake.seen.total == count(shop) == 1
    other = complete(shop, key="k", priority=2)
    assert (other.status_code, other.json()["detail"][0]["loc"]) == (422, ["header", "Idempotency-Key"])
    assert shop.call("POST", "/jobs", shop.body(), headers={"Idempotency-Key": "k"}).status_code == 422
    shop.call("DELETE", f"/jobs/{again.json()['jobId']}")
    assert complete(shop, key="k").status_code == 404


def test_two_replicas_run_it_once(database: Database, fake: FakeProvider) -> None:
    """The same request at two replicas at once: one call, and both callers have its result."""
    with running_api(database.open()) as one, running_api(database.open()) as two:
        shop = calling(one, fake)
        shops = [shop, Shop(two, shop.headers, shop.prompt, shop.model)]
        answers = together(6, lambda number: complete(shops[number % 2], key="k"))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert fake.seen.total == 1


def test_a_worker_that_was_faster(local: Shop, fake: FakeProvider) -> None:
    """Where a worker elsewhere has the job already, the caller waits for that one's result, and calls nothing."""
    job_id = complete(local, "?timeout=0", key="k").json()["jobId"]
    [job] = local.claim()
    assert job.id == job_id
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(complete, local, key="k")
        done = Settlement(job_id=job.id, token=job.token, outcome=Completed(result={"by": "a worker"}))
        assert local.api.storage.jobs.settle([done], local.api.clock.now()) == [True]
        answer = waiting.result(AT_ONCE)
    assert (answer.status_code, answer.json()["responseData"]) == (200, {"by": "a worker"})
    assert fake.seen.total == 0


def test_a_cancelled_one(local: Shop, fake: FakeProvider) -> None:
    """Cancelled by somebody else, its call is dropped, and the caller has the job as it is now."""
    fake.hold()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(complete, local)
        fake.seen.wait_until(lambda seen: seen.in_flight == 1)
        [job] = local.call("GET", "/jobs").json()
        assert local.call("PATCH", f"/jobs/{job['jobId']}", {"status": "CANCELED"}).status_code == 200
        answer = waiting.result(AT_ONCE)
    assert (answer.status_code, answer.json()["status"]) == (200, "CANCELED")


def test_an_outage_is_waited_out(shop: Shop, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the database cannot be read the callers of jobs that are stored wait on, and have their results when it is
    back; one whose time is up is told where its job is, though not what it waits for."""

    def away(*_: object) -> None:
        raise StorageUnavailable("away")

    fake.hold()
    with ThreadPoolExecutor(2) as threads:
        hasty = threads.submit(complete, shop, timeout=1)
        patient = threads.submit(complete, shop)
        fake.seen.wait_until(lambda seen: seen.in_flight == 2)
        with monkeypatch.context() as patch:
            patch.setattr(shop.api.storage.jobs, "get", away)
            patch.setattr(shop.api.storage.prompts, "get_many", away)
            fake.release()
            told = hasty.result(AT_ONCE)
            assert not patient.done()
        assert patient.result(AT_ONCE).json()["status"] == "PROCESSED"
    assert (told.status_code, told.json()["waitsFor"]["reason"]) == (202, "database_away")
    assert shop.call("GET", told.headers["Location"]).json()["status"] == "PROCESSED"
