"""Clients over HTTP: contract, sections 2 and 4."""

import re
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from engine.jobs.job import totals_of
from engine.purses import purse_of_client, purse_of_worker
from engine.records.values import Budget, BudgetPeriod, Money, WorkerScope, WorkerStatus
from tests.support.api import Api, Headers
from tests.support.factories import make_attempt, make_call, make_job, make_running_worker, make_worker


def path_of(client: Headers) -> str:
    return f"/clients/{client['client_id']}"


def test_a_new_client_has_its_key_shown_once(api: Api) -> None:
    """POST is 201 with api_key, 64 hex characters, which no other answer shows; the client is enabled."""
    answer = api.http.post("/clients", json={"name": "shop"}, headers=api.admin)
    assert answer.status_code == 201
    made = answer.json()
    assert re.fullmatch(r"[0-9a-f]{64}", made["api_key"])
    assert (made["name"], made["enabled"], made["_metadata"]["createdBy"]) == ("shop", True, "admin")
    shown = api.http.get(f"/clients/{made['clientId']}", headers=api.admin)
    listed = api.http.get("/clients", headers=api.admin)
    assert shown.json() == {name: value for name, value in made.items() if name not in ("api_key", "apiKey")}
    assert listed.json() == [shown.json()]
    assert made["api_key"] not in shown.text + listed.text


def test_the_key_is_not_stored(api: Api, client: Headers) -> None:
    """The database holds keyed hashes only."""
    stored = api.storage.clients.get(client["client_id"])
    assert stored is not None
    kept = (stored.key_lookup, stored.key_salt, stored.key_hash)
    assert client["client_api_key"] not in kept
    assert not any(value in repr(stored) for value in kept)


@pytest.mark.parametrize("name", ["", "n" * 256, None, 5, ["n"]])
def test_a_name_has_1_to_255_characters(local_api: Api, name: object) -> None:
    """A name that is empty, too long or no text is 422."""
    assert local_api.http.post("/clients", json={"name": name}, headers=local_api.admin).status_code == 422


def test_patch_changes_what_is_given(api: Api, client: Headers) -> None:
    """PATCH changes name and enabled, each alone; what is not given or null stays."""
    http, path = api.http, path_of(client)
    renamed = http.patch(path, json={"name": "new", "enabled": None}, headers=api.admin)
    assert (renamed.status_code, renamed.json()["name"], renamed.json()["enabled"]) == (200, "new", True)
    disabled = http.patch(path, json={"enabled": False}, headers=api.admin).json()
    assert (disabled["name"], disabled["enabled"], disabled["_metadata"]["updatedBy"]) == ("new", False, "admin")


def test_an_empty_patch_changes_nothing(api: Api, client: Headers) -> None:
    """An empty PATCH is 200 and leaves the client as it was, updatedAt included."""
    before = api.http.get(path_of(client), headers=api.admin).json()
    answer = api.http.patch(path_of(client), json={}, headers=api.admin)
    assert (answer.status_code, answer.json()) == (200, before)


def test_toggle_inverts_enabled(api: Api, client: Headers) -> None:
    """toggle disables and enables again; the key works again then."""
    path = f"{path_of(client)}/toggle"
    assert api.http.post(path, headers=api.admin).json()["enabled"] is False
    assert api.http.get("/prompts", headers=client).status_code == 401
    assert api.http.post(path, headers=api.admin).json()["enabled"] is True
    assert api.http.get("/prompts", headers=client).status_code == 200


def test_rotating_replaces_the_key_at_once(api: Api, client: Headers) -> None:
    """rotate-key is 200 {clientId, api_key}; the old key stops at once, the new one works."""
    assert api.http.get("/prompts", headers=client).status_code == 200
    answer = api.http.post(f"{path_of(client)}/rotate-key", headers=api.admin)
    assert answer.status_code == 200
    rotated = answer.json()
    assert rotated["clientId"] == client["client_id"]
    assert rotated["api_key"] == rotated["apiKey"] != client["client_api_key"]
    assert api.http.get("/prompts", headers=client).status_code == 401
    assert api.http.get("/prompts", headers={**client, "client_api_key": rotated["api_key"]}).status_code == 200


def test_a_deleted_client_is_gone(api: Api, client: Headers) -> None:
    """DELETE is 204 and soft; afterwards every read and change is 404 and the list is without it."""
    assert api.http.delete(path_of(client), headers=api.admin).status_code == 204
    for method, path in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/toggle"),
        ("POST", "/rotate-key"),
    ):
        body = {} if method == "PATCH" else None
        answer = api.http.request(method, path_of(client) + path, json=body, headers=api.admin)
        assert answer.status_code == 404
        assert "not found" in answer.json()["detail"]
    assert api.http.get("/clients", headers=api.admin).json() == []


@pytest.mark.parametrize("way", ["toggle", "patch", "delete"])
def test_disabling_or_deleting_a_client_stops_its_workers(api: Api, way: str) -> None:
    """A client's running workers are stopped with it, on whichever replica; nobody else's are."""
    client, other = api.new_client(), api.new_client()
    mine = [make_running_worker(client_id=client["client_id"]) for _ in range(3)]
    idle = make_worker(client_id=client["client_id"])
    theirs = make_running_worker(client_id=other["client_id"])
    shared = make_running_worker(client_id=client["client_id"], scope=WorkerScope.ALL)
    for worker in (*mine, idle, theirs, shared):
        api.storage.workers.add(worker)
    if way == "toggle":
        api.http.post(f"{path_of(client)}/toggle", headers=api.admin)
    elif way == "patch":
        api.http.patch(path_of(client), json={"enabled": False}, headers=api.admin)
    else:
        api.http.delete(path_of(client), headers=api.admin)
    assert {worker.id for worker in api.storage.workers.running()} == {theirs.id, shared.id}
    for worker in mine:
        stored = api.storage.workers.get(worker.id)
        assert stored is not None
        assert (stored.status, stored.lease, stored.thread_id, stored.started_at) == (
            WorkerStatus.STOPPED,
            None,
            None,
            None,
        )
        assert replace(stored.metadata, updated_at=None, updated_by=None) == worker.metadata
    assert api.control.nudges == 1


def test_enabling_or_renaming_a_client_leaves_its_workers_alone(api: Api, client: Headers) -> None:
    """Only disabling stops workers."""
    worker = make_running_worker(client_id=client["client_id"])
    api.storage.workers.add(worker)
    api.http.patch(path_of(client), json={"name": "new"}, headers=api.admin)
    assert [running.id for running in api.storage.workers.running()] == [worker.id]


def test_how_a_budget_stands(api: Api, client: Headers) -> None:
    """GET tells what has been spent in the period, what replicas hold, what is left, and when the period ends; jobs
    that wait are explained by it. Without a budget, and in lists, there is nothing to tell."""
    shown = api.http.get(path_of(client), headers=api.admin).json()
    assert (shown["budget"], shown["budgetState"]) == (None, None)
    api.http.patch(path_of(client), json={"budget": {**BUDGET, "period": "day"}}, headers=api.admin)
    now = api.clock.now()
    calls = (make_call(started_at=now, input_cost=Decimal(2), output_cost=Decimal("1.5")),)
    calls += (make_call(started_at=now - timedelta(days=1)), make_call(started_at=now, currency="EUR"))
    attempt = make_attempt(1, calls=calls)
    made = make_job(client_id=client["client_id"], ledger=(attempt,), totals=totals_of(calls))
    api.storage.jobs.insert([made])
    stored = api.storage.clients.get(client["client_id"])
    assert stored is not None
    purse = purse_of_client(stored, now)
    assert purse is not None
    held = {"holders": {"replica": ["2000000000000", now.timestamp() + 60], "gone": ["9", 0]}}
    api.storage.shared.change(purse.key, lambda _: (held, None), now)

    state = api.http.get(path_of(client), headers=api.admin).json()["budgetState"]
    ends = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    assert datetime.fromisoformat(state.pop("periodEnds")) == ends
    assert state == {"currency": "USD", "spent": 3.5, "reserved": 2.0, "left": 7.0, "exhausted": False}
    assert api.http.get("/clients", headers=api.admin).json()[0]["budgetState"] is None
    assert api.http.get(f"/jobs/{made.id}/explain", headers=client).json()["reason"] == "no_worker"

    api.http.patch(path_of(client), json={"budget": {**BUDGET, "amount": 3.5, "period": "day"}}, headers=api.admin)
    state = api.http.get(path_of(client), headers=api.admin).json()["budgetState"]
    assert (state["left"], state["exhausted"]) == (0.0, True)
    told = api.http.get(f"/jobs/{made.id}/explain", headers=client).json()
    assert told["reason"] == "budget_exhausted"
    assert f"{client['client_id']}, 3.5 USD a day, is used up: its period ends at" in told["text"]


def test_how_a_cost_cap_stands(api: Api, client: Headers) -> None:
    """A running worker tells what it has spent since its start, and is no candidate once that is its maxCost."""
    config = {"pollInterval": 1, "maxItemsPerBatch": 1, "maxCost": {"amount": 2, "currency": "USD"}}
    made = api.http.post("/workers", json={"workerId": "w", "config": config}, headers=client).json()
    path = f"/workers/{made['workerId']}"
    assert made["budgetState"] is api.http.get(path, headers=client).json()["budgetState"] is None
    api.http.post(f"{path}/start", headers=client)
    stored = api.storage.workers.get(made["workerId"])
    assert stored is not None
    purse = purse_of_worker(stored)
    assert purse is not None
    api.storage.shared.change(purse.key, lambda _: ({"moved": "2000000000000"}, None), api.clock.now())
    state = api.http.get(path, headers=client).json()["budgetState"]
    spent = {"currency": "USD", "spent": 2.0, "reserved": 0.0, "left": 0.0, "periodEnds": None, "exhausted": True}
    assert state == spent
    job = make_job(client_id=client["client_id"])
    api.storage.jobs.insert([job])
    [told] = api.http.get(f"/jobs/{job.id}/explain", headers=client).json()["workers"]
    assert told["reasons"] == ["is at its maxCost, which is used up"]


BUDGET = {"amount": 12.5, "currency": "USD", "period": "month"}


def test_a_client_has_a_budget(api: Api) -> None:
    """It comes with the client or later, is shown with it, stays when something else changes, and null removes it."""
    made = api.http.post("/clients", json={"name": "shop", "budget": BUDGET}, headers=api.admin).json()
    path = f"/clients/{made['clientId']}"
    assert made["budget"] == BUDGET
    assert api.http.patch(path, json={"name": "new"}, headers=api.admin).json()["budget"] == BUDGET
    exact = {"amount": "0.000000000001", "currency": "EUR", "period": "total"}
    changed = api.http.patch(path, json={"budget": exact}, headers=api.admin).json()
    assert changed["budget"] == {**exact, "amount": 1e-12}
    stored = api.storage.clients.get(made["clientId"])
    assert stored is not None
    assert stored.budget == Budget(Money(Decimal("1E-12"), "EUR"), BudgetPeriod.TOTAL)
    assert api.http.patch(path, json={"budget": None}, headers=api.admin).json()["budget"] is None
    assert api.http.get("/clients", headers=api.admin).json()[0]["budget"] is None


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": -1}, "amount"),
        ({"amount": 9_000_001}, "amount"),
        ({"amount": "1e-13"}, "amount"),
        ({"amount": "NaN"}, "amount"),
        ({"amount": None}, "amount"),
        ({"currency": ""}, "currency"),
        ({"period": "week"}, "period"),
    ],
)
def test_a_budget_has_bounds(local_api: Api, wrong: dict[str, object], field: str) -> None:
    """What is no amount, currency or period is 422 with the field's name, in POST and PATCH, and for a worker too."""
    client = local_api.new_client()
    budget = {**BUDGET, **wrong}
    config = {"pollInterval": 1, "maxItemsPerBatch": 1, "maxCost": budget}
    answers = [
        local_api.http.post("/clients", json={"name": "n", "budget": budget}, headers=local_api.admin),
        local_api.http.patch(path_of(client), json={"budget": budget}, headers=local_api.admin),
    ]
    if field != "period":
        answers.append(local_api.http.post("/workers", json={"workerId": "w", "config": config}, headers=client))
    for answer in answers:
        assert answer.status_code == 422
        assert {problem["loc"][-1] for problem in answer.json()["detail"]} == {field}
