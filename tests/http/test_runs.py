"""/runs: begun, looked at, held up and ended over HTTP."""

from typing import Any
from unittest.mock import ANY

import pytest

from engine.jobs.states import JobState
from tests.support.api import Api
from tests.support.jobs_http import Shop, open_shop

ACTIONS = ("pause", "resume", "cancel")


@pytest.fixture
def shop(api: Api) -> Shop:
    """A client with a prompt and a model."""
    return open_shop(api)


def body(shop: Shop, **fields: Any) -> dict[str, Any]:
    """A valid body for POST /runs."""
    return {
        "initialWorkingPromptIds": [shop.prompt],
        "evalPromptId": shop.prompt,
        "evalModel": shop.model,
        "metaPromptId": shop.prompt,
        "metaModel": shop.model,
        "workingModels": [shop.model],
        "maxIterations": 2,
        "requestData": {"text": "hello"},
        **fields,
    }


def begin(shop: Shop, **fields: Any) -> dict[str, Any]:
    answer = shop.call("POST", "/runs", body(shop, **fields))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_a_run_begins_with_its_first_job(shop: Shop) -> None:
    """POST answers 201 with a running run, whose first job is an ordinary one in the queue, with the defaults."""
    run = begin(shop)
    assert (run["status"], run["temperature"], run["priority"]) == ("RUNNING", 0.7, 100)
    assert (run["currentModelIndex"], run["currentIteration"], run["failureReason"]) == (0, 0, None)
    assert (run["modelRuns"], run["processingMetrics"]) == ([], None)
    job = shop.get(run["currentJobId"])
    assert (job["status"], job["operation"], job["priority"]) == ("PENDING", "optimize", 100)
    assert job["clientReference"] == {"runId": run["runId"], "modelIndex": 0, "iteration": 0}
    assert (job["evalPrompt"], job["metaModel"]) == (shop.prompt, shop.model)
    assert shop.call("GET", f"/runs/{run['runId']}").json() == run | {"waitsFor": ANY}


def test_a_run_says_what_it_waits_for(shop: Shop) -> None:
    """While nobody takes its jobs it says why, in a word and in a sentence; a paused one waits for nothing."""
    run = begin(shop)
    path = f"/runs/{run['runId']}"
    waits = shop.call("GET", path).json()["waitsFor"]
    assert (waits["reason"], "optimize" in waits["text"]) == ("no_worker", True)
    shop.call("PATCH", f"{path}/pause")
    assert shop.call("GET", path).json()["waitsFor"] is None


@pytest.mark.parametrize("field", ["initialWorkingPromptIds", "evalPromptId", "metaPromptId", "evalModel", "metaModel"])
def test_what_a_run_names_has_to_exist(shop: Shop, field: str) -> None:
    """An unknown prompt or model is a 400 that says which kind, and nothing is stored."""
    wrong = ["0" * 24] if field == "initialWorkingPromptIds" else "0" * 24
    answer = shop.call("POST", "/runs", body(shop, **{field: wrong}))
    assert answer.status_code == 400
    assert ("model" if "Model" in field else "prompt") in answer.json()["detail"]
    assert shop.call("GET", "/runs").json() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"maxIterations": 0},
        {"maxIterations": 101},
        {"workingModels": []},
        {"workingModels": ["m"] * 21, "maxIterations": 100},
        {"temperature": 1.1},
        {"priority": 0},
        {"requestData": None},
    ],
)
def test_a_run_that_cannot_be_is_422(shop: Shop, fields: dict[str, Any]) -> None:
    """Limits of the contract, and more iterations than one record holds."""
    assert shop.call("POST", "/runs", body(shop, **fields)).status_code == 422


def test_lists_are_filtered_and_cut(shop: Shop) -> None:
    """By status, in insertion order, with a page and the total."""
    ids = [begin(shop)["runId"] for _ in range(3)]
    shop.call("PATCH", f"/runs/{ids[1]}/cancel")
    running = shop.call("GET", "/runs?status=RUNNING")
    assert [run["runId"] for run in running.json()] == [ids[0], ids[2]]
    page = shop.call("GET", "/runs?limit=1&skip=1")
    assert ([run["runId"] for run in page.json()], page.headers["X-Total-Count"]) == ([ids[1]], "3")
    assert shop.call("GET", "/runs?status=BAD").status_code == 422
    assert len(shop.as_admin("GET", "/runs").json()) == 3


def status_of(shop: Shop, run: dict[str, Any]) -> str:
    return str(shop.get(run["currentJobId"])["status"])


def test_held_up_and_taken_up_again(shop: Shop) -> None:
    """A pause takes the queued job back at once; what is not possible as things stand is a 400."""
    run = begin(shop)
    path = f"/runs/{run['runId']}"
    assert shop.call("PATCH", f"{path}/resume").status_code == 400
    paused = shop.call("PATCH", f"{path}/pause")
    assert (paused.status_code, paused.json()["status"]) == (200, "PAUSED")
    assert status_of(shop, run) == "CANCELED"
    assert shop.call("PATCH", f"{path}/pause").status_code == 400
    resumed = shop.call("PATCH", f"{path}/resume")
    assert (resumed.status_code, resumed.json()["status"]) == (200, "RUNNING")
    ended = shop.call("PATCH", f"{path}/cancel")
    assert (ended.status_code, ended.json()["status"]) == (200, "CANCELLED")
    assert [shop.call("PATCH", f"{path}/{action}").status_code for action in ACTIONS] == [400, 400, 400]


@pytest.mark.parametrize(("query", "status"), [("", "PROCESSING"), ("?inFlight=drop", "CANCELED")])
def test_a_pause_lets_calls_end_or_drops_them(shop: Shop, query: str, status: str) -> None:
    """`inFlight` says what becomes of a job that is being worked on."""
    run = begin(shop)
    assert [job.id for job in shop.claim()] == [run["currentJobId"]]
    assert shop.call("PATCH", f"/runs/{run['runId']}/pause{query}").status_code == 200
    assert status_of(shop, run) == status


@pytest.mark.parametrize("claimed", [False, True])
def test_cancel_and_delete_take_the_job_back(shop: Shop, claimed: bool) -> None:
    """A job in the queue is withdrawn at once, one in flight is taken from its worker."""
    for method, tail in (("PATCH", "/cancel"), ("DELETE", "")):
        run = begin(shop)
        if claimed:
            shop.claim()
        assert shop.call(method, f"/runs/{run['runId']}{tail}").status_code == (200 if tail else 204)
        job = shop.api.storage.jobs.get(run["currentJobId"])
        assert job is not None
        assert job.status is JobState.CANCELED


def test_a_deleted_run_is_gone(shop: Shop) -> None:
    """In any state: 204, then 404, and no list shows it."""
    for action in (None, "pause", "cancel"):
        path = f"/runs/{begin(shop)['runId']}"
        if action is not None:
            shop.call("PATCH", f"{path}/{action}")
        answer = shop.call("DELETE", path)
        assert (answer.status_code, answer.content) == (204, b"")
        assert (shop.call("GET", path).status_code, shop.call("DELETE", path).status_code) == (404, 404)
    assert (shop.call("GET", "/runs").json(), shop.as_admin("GET", "/runs").json()) == ([], [])


def test_another_clients_run_is_not_there(shop: Shop) -> None:
    """404 to look at or delete, 400 to change, as an unknown one; an admin may do all of it."""
    path = f"/runs/{begin(shop)['runId']}"
    other = shop.api.new_client("other")
    for wanted in (path, f"/runs/{'0' * 24}", "/runs/no-id"):
        calls = [("GET", ""), ("DELETE", ""), *(("PATCH", f"/{action}") for action in ACTIONS)]
        statuses = [shop.api.http.request(method, wanted + tail, headers=other).status_code for method, tail in calls]
        assert statuses == [404, 404, 400, 400, 400]
    assert shop.api.http.get("/runs", headers=other).json() == []
    assert shop.as_admin("PATCH", f"{path}/pause").status_code == 200


def test_credentials_and_owners(shop: Shop) -> None:
    """Without credentials 401, an admin names the owner or gets a 400."""
    assert shop.api.http.get("/runs").status_code == 401
    assert shop.as_admin("POST", "/runs", body(shop)).status_code == 400
    headers = {**shop.api.admin, "client_id": "somebody"}
    made = shop.api.http.post("/runs", json=body(shop), headers=headers)
    assert (made.status_code, made.json()["clientId"]) == (201, "somebody")
