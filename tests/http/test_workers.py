"""Workers over REST: contract, sections 2 and 7."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from engine.records.values import WorkerStatus
from tests.support.api import Api, Headers
from tests.support.jobs_http import Shop, open_shop, together

CONFIG: dict[str, Any] = {"pollInterval": 5, "maxItemsPerBatch": 10}
KEYS = {
    "workerId",
    "name",
    "clientId",
    "status",
    "scope",
    "config",
    "group",
    "threadInfo",
    "budgetState",
    "_metadata",
    "_id",
    "createdAt",
}


@pytest.fixture
def shop(api: Api) -> Shop:
    return open_shop(api)


@pytest.fixture
def local(local_api: Api) -> Shop:
    return open_shop(local_api)


def create(shop: Shop, name: str = "w", **fields: Any) -> Any:
    answer = shop.call("POST", "/workers", {"workerId": name, "config": CONFIG, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_new_worker_is_stopped(shop: Shop) -> None:
    """POST /workers is 201 stopped; workerId is the stored id, `name` what was given, unset filters are null."""
    made = create(shop, "my worker", group="g")
    assert set(made) == KEYS
    assert (made["name"], made["status"], made["group"], made["threadInfo"]) == ("my worker", "stopped", "g", None)
    assert made["workerId"] == made["_id"] != "my worker"
    assert made["scope"] == "client"
    assert made["clientId"] == shop.client_id
    unset = dict.fromkeys(("modelFilter", "operationFilter", "clientReferenceFilters", "maxCost"))
    assert made["config"] == {**CONFIG, **unset}
    assert shop.call("GET", f"/workers/{made['workerId']}").json() == made


def test_filters_come_back(shop: Shop) -> None:
    """The filters of a worker and what it may spend are kept as they came."""
    config = {**CONFIG, "modelFilter": "m", "operationFilter": "o", "clientReferenceFilters": {"a.b": "1", "c": ""}}
    config["maxCost"] = {"amount": 0.1, "currency": "USD"}
    made = create(shop, config=config)
    assert shop.call("GET", f"/workers/{made['workerId']}").json()["config"] == config


@pytest.mark.parametrize(
    "config",
    [
        {},
        {**CONFIG, "pollInterval": 0},
        {**CONFIG, "pollInterval": 3601},
        {**CONFIG, "maxItemsPerBatch": 0},
        {**CONFIG, "maxItemsPerBatch": 1001},
        {"pollInterval": 1},
        {"maxItemsPerBatch": 1},
        {**CONFIG, "clientReferenceFilters": {"a": 5}},
        {**CONFIG, "clientReferenceFilters": []},
    ],
)
def test_config_has_limits(local: Shop, config: dict[str, Any]) -> None:
    """pollInterval is 1 to 3600, maxItemsPerBatch 1 to 1000, both are needed: else 422, at creation and in a PATCH."""
    assert local.call("POST", "/workers", {"workerId": "w", "config": config}).status_code == 422
    made = create(local)
    assert local.call("PATCH", f"/workers/{made['workerId']}", {"config": config}).status_code == 422


@pytest.mark.parametrize(
    "config", [{"pollInterval": 1, "maxItemsPerBatch": 1}, {"pollInterval": 3600, "maxItemsPerBatch": 1000}]
)
def test_limits_are_included(local: Shop, config: dict[str, Any]) -> None:
    """The limits themselves are allowed."""
    assert local.call("POST", "/workers", {"workerId": "w", "config": config}).status_code == 201


@pytest.mark.parametrize(
    "fields", [{"workerId": ""}, {"workerId": "x" * 101}, {"group": ""}, {"group": "x" * 101}, {"scope": "some"}]
)
def test_names_have_limits(local: Shop, fields: dict[str, Any]) -> None:
    """Names and groups have 1 to 100 characters."""
    assert local.call("POST", "/workers", {"workerId": "w", "config": CONFIG, **fields}).status_code == 422


@pytest.mark.parametrize("name", ["$where", "a\0b"])
def test_impossible_reference_filters_are_400(local: Shop, name: str) -> None:
    """A clientReference filter that no query could ask by is refused."""
    config = {**CONFIG, "clientReferenceFilters": {name: "1"}}
    assert local.call("POST", "/workers", {"workerId": "w", "config": config}).status_code == 400
    made = create(local)
    assert local.call("PATCH", f"/workers/{made['workerId']}", {"config": config}).status_code == 400


def test_names_are_unique_per_client_among_the_live(shop: Shop) -> None:
    """A taken name is 400; another client may have it; it is free again after a deletion."""
    made = create(shop, "w")
    assert shop.call("POST", "/workers", {"workerId": "w", "config": CONFIG}).status_code == 400
    create(open_shop(shop.api), "w")
    assert shop.call("DELETE", f"/workers/{made['workerId']}").status_code == 204
    create(shop, "w")


def test_simultaneous_creations_give_one_worker(shop: Shop) -> None:
    """Of eight creations of one name at once one succeeds."""
    body = {"workerId": "w", "config": CONFIG}
    answers = together(8, lambda _: shop.call("POST", "/workers", body).status_code)
    assert sorted(answers) == [201] + [400] * 7


def test_start_and_stop(shop: Shop) -> None:
    """Start: 200 running with threadInfo, placed on this replica; again 400. Stop: 200 stopped, null; again 400."""
    path = f"/workers/{create(shop)['workerId']}"
    started = shop.call("POST", f"{path}/start").json()
    assert started["status"] == "running"
    assert set(started["threadInfo"]) == {"threadId", "startedAt"}
    assert datetime.fromisoformat(started["threadInfo"]["startedAt"]).tzinfo is not None
    stored = shop.api.storage.workers.get(started["workerId"])
    assert stored is not None
    assert stored.lease is not None
    assert stored.lease.owner == "here"
    assert shop.call("POST", f"{path}/start").status_code == 400
    assert shop.call("GET", path).json() == started
    stopped = shop.call("POST", f"{path}/stop").json()
    assert (stopped["status"], stopped["threadInfo"]) == ("stopped", None)
    assert shop.call("POST", f"{path}/stop").status_code == 400
    after = shop.api.storage.workers.get(started["workerId"])
    assert after is not None
    assert (after.lease, after.thread_id, after.started_at) == (None, None, None)
    assert shop.call("POST", f"{path}/start").status_code == 200


def test_start_and_stop_wake_the_pool(local: Shop) -> None:
    """A start and a stop nudge this replica's pool, so that they take effect now."""
    path, control = f"/workers/{create(local)['workerId']}", local.api.control
    before = control.nudges
    local.call("POST", f"{path}/start")
    local.call("POST", f"{path}/stop")
    assert control.nudges == before + 2


def test_running_workers_are_not_changed(shop: Shop) -> None:
    """PATCH and DELETE of a running worker are 400; of a stopped one 200 and 204."""
    path = f"/workers/{create(shop)['workerId']}"
    shop.call("POST", f"{path}/start")
    change = {"config": {"pollInterval": 9, "maxItemsPerBatch": 9}}
    assert shop.call("PATCH", path, change).status_code == 400
    assert shop.call("DELETE", path).status_code == 400
    shop.call("POST", f"{path}/stop")
    assert shop.call("PATCH", path, change).json()["config"]["pollInterval"] == 9
    unchanged = shop.call("GET", path).json()
    assert shop.call("PATCH", path, {}).json() == unchanged
    answer = shop.call("DELETE", path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert shop.call("GET", path).status_code == 404


def test_simultaneous_starts(shop: Shop) -> None:
    """Of eight starts at once one is 200 and the others 400."""
    path = f"/workers/{create(shop)['workerId']}/start"
    answers = together(8, lambda _: shop.call("POST", path).status_code)
    assert sorted(answers) == [200] + [400] * 7


def test_foreign_and_unknown_workers_answer_alike(shop: Shop) -> None:
    """GET, DELETE, start and stop 404, PATCH 400; in a batch it is reported in `failed`."""
    foreign = create(open_shop(shop.api))["workerId"]
    for worker_id in (foreign, "a" * 24, "nonsense", "%00"):
        path = f"/workers/{worker_id}"
        assert shop.call("GET", path).status_code == 404
        assert shop.call("DELETE", path).status_code == 404
        assert shop.call("POST", f"{path}/start").status_code == 404
        assert shop.call("POST", f"{path}/stop").status_code == 404
        assert shop.call("PATCH", path, {"config": CONFIG}).status_code == 400
    answer = shop.call("PATCH", "/workers/batch", {"action": "start", "workerIds": [foreign, "\0"]})
    assert answer.status_code == 200
    assert [failed["workerId"] for failed in answer.json()["failed"]] == [foreign, "\0"]


def test_lists_and_visibility(shop: Shop) -> None:
    """A client lists its own workers in order, an admin all, with X-Total-Count."""
    other = open_shop(shop.api)
    for name in ("a", "b", "c"):
        create(shop, name)
    create(other, "d")

    def names(headers: Headers, query: str = "") -> list[str]:
        return [one["name"] for one in shop.api.http.get(f"/workers{query}", headers=headers).json()]

    assert names(shop.headers) == ["a", "b", "c"]
    assert names(shop.headers, "?limit=1&skip=1") == ["b"]
    assert names(shop.headers, "?order=desc") == ["c", "b", "a"]
    assert names(shop.api.admin) == ["a", "b", "c", "d"]
    assert shop.call("GET", "/workers?limit=1").headers["X-Total-Count"] == "3"


def test_batch_create_reports_clashes(shop: Shop) -> None:
    """Batch create makes prefix-1 to -n; names that are taken are in `failed`, the others are made."""
    create(shop, "p-2")
    body = {"workerIdPrefix": "p", "count": 3, "config": CONFIG, "group": "g"}
    answer = shop.call("POST", "/workers/batch", body)
    made = answer.json()
    assert answer.status_code == 201
    assert [one["name"] for one in made["created"]] == ["p-1", "p-3"]
    assert all(one["group"] == "g" for one in made["created"])
    assert [one["workerId"] for one in made["failed"]] == ["p-2"]
    assert (made["total_requested"], made["total_created"]) == (3, 2)


@pytest.mark.parametrize(
    "fields", [{"count": 0}, {"count": 101}, {"workerIdPrefix": ""}, {"workerIdPrefix": "x" * 91}, {"group": ""}]
)
def test_batch_create_has_limits(local: Shop, fields: dict[str, Any]) -> None:
    """1 to 100 workers, a prefix of 1 to 90 characters."""
    body = {"workerIdPrefix": "p", "count": 1, "config": CONFIG, **fields}
    assert local.call("POST", "/workers/batch", body).status_code == 422


def batch(shop: Shop, **body: Any) -> Any:
    answer = shop.call("PATCH", "/workers/batch", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_batch_start_and_stop_by_ids(shop: Shop) -> None:
    """Batch update starts and stops by workerIds; one already in the wanted state counts as failed."""
    first, second = create(shop, "a")["workerId"], create(shop, "b")["workerId"]
    shop.call("POST", f"/workers/{first}/start")
    done = batch(shop, action="start", workerIds=[first, second])
    assert [one["workerId"] for one in done["updated"]] == [second]
    assert [one["workerId"] for one in done["failed"]] == [first]
    assert "already" in done["failed"][0]["error"]
    assert (done["action"], done["total_requested"], done["total_updated"]) == ("start", 2, 1)
    stopped = batch(shop, action="stop", workerIds=[first, second])
    assert [one["status"] for one in stopped["updated"]] == ["stopped", "stopped"]
    assert stopped["failed"] == []


def test_batch_update_by_group_wins(shop: Shop) -> None:
    """With a group its workers are meant, whatever workerIds says; an unknown group has none."""
    outside = create(shop, "x")["workerId"]
    inside = [create(shop, name, group="g")["workerId"] for name in ("a", "b")]
    create(open_shop(shop.api), "foreign", group="g")
    done = batch(shop, action="start", workerIds=[outside], group="g")
    assert [one["workerId"] for one in done["updated"]] == inside
    assert shop.call("GET", f"/workers/{outside}").json()["status"] == "stopped"
    nothing = batch(shop, action="start", group="nobody")
    assert (nothing["updated"], nothing["failed"], nothing["total_requested"]) == ([], [], 0)


@pytest.mark.parametrize(
    "body", [{}, {"action": "start"}, {"action": "pause", "group": "g"}, {"action": "stop", "workerIds": []}]
)
def test_batch_update_needs_workers(local: Shop, body: dict[str, Any]) -> None:
    """Neither workerIds nor group, or an unknown action, is 422."""
    assert local.call("PATCH", "/workers/batch", body).status_code == 422


def test_summary_counts_and_filters(shop: Shop) -> None:
    """The summary counts by status with ids; filters are exact, and clientReference goes by the workers' filters."""
    plain = create(shop, "plain")["workerId"]
    config = {**CONFIG, "modelFilter": "m", "operationFilter": "o", "clientReferenceFilters": {"team": "5", "x": "y"}}
    picky = create(shop, "picky", config=config)["workerId"]
    shop.call("POST", f"/workers/{picky}/start")
    create(open_shop(shop.api), "foreign")

    def summary(query: str = "") -> Any:
        return shop.call("GET", f"/workers/summary{query}").json()

    assert summary() == {
        "running": 1,
        "stopped": 1,
        "error": 0,
        "total": 2,
        "running_ids": [picky],
        "stopped_ids": [plain],
        "error_ids": [],
    }
    for query in (
        "modelFilter=m",
        "operationFilter=o",
        "clientReference.team=5",
        "clientReference.team=5&modelFilter=m",
    ):
        assert summary(f"?{query}")["running_ids"] == [picky]
        assert summary(f"?{query}")["total"] == 1
    for query in ("modelFilter=n", "clientReference.team=6", "clientReference.team=5&clientReference.x=z"):
        assert summary(f"?{query}")["total"] == 0
    assert shop.as_admin("GET", "/workers/summary").json()["total"] == 3


def test_worker_for_all_clients_is_the_admins(shop: Shop) -> None:
    """An admin may create a worker of scope `all`; a client may not, nor see or command one that bears its name."""
    body = {"workerId": "w", "config": CONFIG, "scope": "all"}
    assert shop.call("POST", "/workers", body).status_code == 403
    headers = {**shop.api.admin, "client_id": shop.client_id}
    made = shop.api.http.post("/workers", json=body, headers=headers).json()
    assert (made["scope"], made["clientId"]) == ("all", shop.client_id)
    path = f"/workers/{made['workerId']}"
    assert shop.call("GET", path).status_code == 404
    assert shop.call("POST", f"{path}/start").status_code == 404
    assert shop.call("GET", "/workers").json() == []
    assert shop.call("GET", "/workers/summary").json()["total"] == 0
    assert shop.as_admin("POST", f"{path}/start").json()["status"] == "running"


def test_admin_names_the_owner_of_a_worker(local: Shop) -> None:
    """An admin without a client_id header gets 400, with one the worker is that client's."""
    http, admin, body = local.api.http, local.api.admin, {"workerId": "w", "config": CONFIG}
    assert http.post("/workers", json=body, headers=admin).status_code == 400
    assert http.post("/workers", json=body, headers={**admin, "client_id": "admin"}).json()["clientId"] == "admin"
    prefix = {"workerIdPrefix": "p", "count": 1, "config": CONFIG}
    assert http.post("/workers/batch", json=prefix, headers=admin).status_code == 400


def test_validation_goes_before_authentication(local: Shop) -> None:
    """On the workers' endpoints 422 beats 401."""
    assert local.api.http.post("/workers", json={}).status_code == 422
    assert local.api.http.post("/workers", json={"workerId": "w", "config": CONFIG}).status_code == 401


def test_disabled_clients_workers_do_not_start(shop: Shop) -> None:
    """The workers of a disabled client stop and cannot be started, by an admin neither, until it is enabled."""
    path = f"/workers/{create(shop)['workerId']}"
    shop.call("POST", f"{path}/start")
    shop.as_admin("PATCH", f"/clients/{shop.client_id}", {"enabled": False})
    assert shop.as_admin("GET", path).json()["status"] == "stopped"
    assert shop.as_admin("POST", f"{path}/start").status_code == 400
    shop.as_admin("PATCH", f"/clients/{shop.client_id}", {"enabled": True})
    assert shop.as_admin("POST", f"{path}/start").status_code == 200


def test_worker_in_error_can_be_stopped_and_started(local: Shop) -> None:
    """A worker in error is counted as such, and both actions are allowed."""
    worker_id = create(local)["workerId"]
    stored = local.api.storage.workers.get(worker_id)
    assert stored is not None
    assert local.api.storage.workers.compare_and_set(replace(stored, status=WorkerStatus.ERROR))
    assert local.call("GET", "/workers/summary").json()["error_ids"] == [worker_id]
    assert local.call("POST", f"/workers/{worker_id}/stop").json()["status"] == "stopped"


def test_wrong_methods_are_405(local: Shop) -> None:
    """A path that exists with another method is 405, one that does not 404."""
    assert local.call("PUT", "/workers").status_code == 405
    assert local.call("PUT", "/jobs").status_code == 405
    assert local.call("GET", "/jobs/a/b/c").status_code == 404
