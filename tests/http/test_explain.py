"""GET /jobs/{id}/explain: why a job is where it is."""

from datetime import timedelta
from typing import Any

import pytest

from engine.jobs.outcome import DeadLettered, Retried, Settlement
from tests.support.api import Api
from tests.support.factories import make_attempt, make_failure
from tests.support.jobs_http import Shop, open_shop

CONFIG = {"pollInterval": 1, "maxItemsPerBatch": 5}


@pytest.fixture
def shop(api: Api) -> Shop:
    return open_shop(api)


def explain(shop: Shop, job_id: str) -> dict[str, Any]:
    answer = shop.call("GET", f"/jobs/{job_id}/explain")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    assert told["jobId"] == job_id
    assert told["text"]
    return told


def worker(shop: Shop, name: str, *, start: bool = True, headers: Any = None, **fields: Any) -> str:
    scope = fields.pop("scope", "client")
    body = {"workerId": name, "config": {**CONFIG, **fields}, "scope": scope}
    made = shop.call("POST", "/workers", body, headers=headers or {}).json()
    if start:
        assert shop.as_admin("POST", f"/workers/{made['workerId']}/start").status_code == 200
    return str(made["workerId"])


def test_no_worker_exists(shop: Shop) -> None:
    """Without any worker it says that there is none, and how many jobs go first."""
    first, second = shop.post()["jobId"], shop.post()["jobId"]
    assert explain(shop, first)["reason"] == "no_worker"
    told = explain(shop, second)
    assert (told["status"], told["workers"], told["position"]) == ("PENDING", [], {"ahead": 1, "capped": False})


def test_no_worker_fits_with_filters(shop: Shop) -> None:
    """Where none fits, each of the client's workers is listed with the filters that keep it from the job."""
    job_id = shop.post(clientReference={"team": "a"})["jobId"]
    worker(shop, "by-model", modelFilter="other")
    worker(shop, "by-operation", operationFilter="translate")
    worker(shop, "by-reference", clientReferenceFilters={"team": "b"})
    told = explain(shop, job_id)
    reasons = {one["name"]: one["reasons"] for one in told["workers"]}
    assert told["reason"] == "no_worker_fits"
    assert reasons["by-model"] == ["takes only model other"]
    assert reasons["by-operation"] == ["takes only operation translate"]
    assert reasons["by-reference"] == ["takes only clientReference team=b"]
    assert not any(one["takesIt"] for one in told["workers"])
    assert {one["config"]["modelFilter"] for one in told["workers"]} == {"other", None}


def test_fitting_workers_are_stopped(shop: Shop) -> None:
    """Where a fitting worker is not running, that is the reason."""
    job_id = shop.post()["jobId"]
    worker(shop, "asleep", start=False)
    worker(shop, "elsewhere", modelFilter="other")
    told = explain(shop, job_id)
    assert told["reason"] == "workers_stopped"
    assert {one["name"]: one["reasons"] for one in told["workers"]}["asleep"] == ["is stopped"]


def test_in_line_of_a_running_worker(shop: Shop) -> None:
    """Where a running worker takes jobs like it, the job is in line: by priority, then age."""
    worker(shop, "awake")
    worker(shop, "asleep", start=False)
    later = shop.post(priority=9)["jobId"]
    shop.post(priority=1)
    told = explain(shop, later)
    assert (told["reason"], told["position"]) == ("in_line", {"ahead": 1, "capped": False})
    assert [(one["name"], one["takesIt"]) for one in told["workers"]] == [("awake", True), ("asleep", False)]


def test_shared_workers_count_and_keep_their_names(shop: Shop) -> None:
    """A worker that serves all clients is listed too; its name and id are shown to admins only, others' never."""
    job_id = shop.post()["jobId"]
    stranger = open_shop(shop.api)
    worker(stranger, "strangers")
    headers = {**shop.api.admin, "client_id": "ops"}
    made = shop.api.http.post(
        "/workers", json={"workerId": "shared", "config": CONFIG, "scope": "all"}, headers=headers
    ).json()
    shop.as_admin("POST", f"/workers/{made['workerId']}/start")
    told = explain(shop, job_id)
    assert told["reason"] == "in_line"
    assert [(one["scope"], one["name"], one["workerId"]) for one in told["workers"]] == [("all", None, None)]
    by_admin = shop.as_admin("GET", f"/jobs/{job_id}/explain").json()
    assert [one["name"] for one in by_admin["workers"]] == ["shared"]


def test_due_later_by_not_before(shop: Shop) -> None:
    """A job with a notBefore time to come is due_later, and says when."""
    job = shop.post(notBefore="2100-01-01T00:00:00Z")
    told = explain(shop, job["jobId"])
    assert (told["reason"], told["dueAt"]) == ("due_later", job["notBefore"])
    assert "2100-01-01" in told["text"]


def settle(shop: Shop, ending: Any, **attempt: Any) -> str:
    job_id = str(shop.post()["jobId"])
    (held,) = shop.claim()
    entry = make_attempt(held.token, owner="worker@replica", **attempt)
    written = Settlement(job_id=job_id, token=held.token, outcome=ending, attempt=entry)
    assert shop.api.storage.jobs.settle([written], shop.api.clock.now()) == [True]
    return job_id


def test_backing_off_after_an_error(shop: Shop) -> None:
    """A job that is retried later says after which error; the attempt is listed with it."""
    due = shop.api.clock.now() + timedelta(hours=1)
    failure = make_failure(error_type="TransientProviderError", message="503 from the provider")
    job_id = settle(
        shop, Retried(failure, due, charged=True), outcome="retried", charged=True, error_message=failure.message
    )
    told = explain(shop, job_id)
    assert told["reason"] == "backing_off"
    assert "503 from the provider" in told["text"]
    assert told["lastError"]["errorType"] == "TransientProviderError"
    assert (told["chargedAttempts"], told["maxAttempts"]) == (1, 5)
    (attempt,) = told["attempts"]
    assert (attempt["outcome"], attempt["errorMessage"], len(attempt["steps"])) == ("retried", failure.message, 1)


def test_held_by_whom_until_when(shop: Shop) -> None:
    """A running job says who holds it until when, with the lease and its token."""
    job_id = shop.post()["jobId"]
    (held,) = shop.claim("worker@replica")
    told = explain(shop, job_id)
    assert told["reason"] == "held"
    assert "worker@replica" in told["text"]
    assert told["lease"]["owner"] == "worker@replica"
    assert told["leaseToken"] == held.token


def test_lease_that_ran_out(shop: Shop) -> None:
    """A job whose holder is gone says that it is about to go back."""
    job_id = shop.post()["jobId"]
    shop.claim(seconds=-1)
    assert explain(shop, job_id)["reason"] == "lease_expired"


def test_failed_job_says_why(shop: Shop) -> None:
    """A dead letter says which error it was, with its attempts."""
    failure = make_failure(message="the answer is not JSON")
    job_id = settle(shop, DeadLettered(failure), outcome="dead_lettered", charged=True)
    told = explain(shop, job_id)
    assert told["reason"] == "error_processing"
    assert "the answer is not JSON" in told["text"]
    assert told["lastError"]["errorMessage"] == failure.message


@pytest.mark.parametrize("status", ["PROCESSED", "CONSUMED", "ERROR_CONSUMING", "CANCELED"])
def test_ended_jobs_say_so(shop: Shop, status: str) -> None:
    """In every other status the reason is the status, and the text says what follows from it."""
    told = explain(shop, shop.bring_to(status))
    assert (told["status"], told["reason"], told["position"]) == (status, status.lower(), None)


def test_deleted_prompts_and_models_are_problems(shop: Shop) -> None:
    """A waiting job whose prompt or model was deleted meanwhile says so."""
    model = shop.api.new_model(name="short-lived")
    job_id = shop.post(model="short-lived")["jobId"]
    assert explain(shop, job_id)["problems"] == []
    shop.call("DELETE", f"/prompts/{shop.prompt}")
    shop.as_admin("DELETE", f"/models/{model['model_id']}")
    problems = " ".join(explain(shop, job_id)["problems"])
    assert f"prompt {shop.prompt}" in problems
    assert "model short-lived" in problems


def test_deleted_fallbacks_and_targets_are_problems(shop: Shop) -> None:
    """A waiting job is told of fallbacks and targets that do not exist any more, however far from its model, and of
    a router that has none left."""
    made = {name: shop.api.new_model(name=name) for name in ("a", "b")}
    shop.api.new_model(name="c", fallbacks=["a"])
    router = {"name": "r", "sdk": "router", "targets": [{"model": "b"}], "fallbacks": ["c"]}
    assert shop.as_admin("POST", "/models", router).status_code == 201
    job_id = shop.post(model="r")["jobId"]
    assert explain(shop, job_id)["problems"] == []
    for model in made.values():
        shop.as_admin("DELETE", f"/models/{model['model_id']}")
    assert explain(shop, job_id)["problems"] == [
        "model b, a target of r, does not exist any more and is left out",
        "model a, a fallback of c, does not exist any more and is left out",
        "router r has no target left",
    ]


def test_listed_workers_are_bounded(shop: Shop) -> None:
    """However many workers there are, at most 100 are listed, and it is told that there are more."""
    job_id = shop.post()["jobId"]
    for prefix in ("a", "b"):
        shop.call("POST", "/workers/batch", {"workerIdPrefix": prefix, "count": 60, "config": CONFIG})
    told = explain(shop, job_id)
    assert (len(told["workers"]), told["moreWorkers"]) == (100, True)
