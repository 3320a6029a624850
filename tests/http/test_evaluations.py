"""/evaluations: begun, driven to their end, looked at, compared, and ended from outside over HTTP."""

from typing import Any

import httpx
import pytest

from api.models.evaluations import ComparisonResponse, EvaluationResponse, ItemResultResponse
from engine.jobs.job import Job
from engine.jobs.outcome import Completed, Outcome
from engine.jobs.queue import JobQuery, Page
from engine.jobs.states import JobState
from tests.http.test_answers_fit import assert_fits
from tests.support.api import Api
from tests.support.jobs_http import Shop, open_shop
from tests.support.optimizing import settled
from tests.support.waiting import eventually
from utilities.clock import SystemClock

CLOCK = SystemClock()
ITEMS = 60


@pytest.fixture
def shop(api: Api) -> Shop:
    return open_shop(api)


def body(shop: Shop, **fields: Any) -> dict[str, Any]:
    """A valid body for POST /evaluations: two texts by one model, on sixty items."""
    items = [{"input": {"n": n}, "expected": str(n)} for n in range(ITEMS)]
    dataset = shop.call("POST", "/datasets", {"name": "d", "items": items}).json()["datasetId"]
    metrics = [{"kind": "exact"}]
    evaluator = shop.call("POST", "/evaluators", {"name": "e", "metrics": metrics}).json()["evaluatorId"]
    return {
        "dataset": dataset,
        "evaluator": evaluator,
        "prompts": [{"instructions": "bad"}, {"prompts": [shop.prompt], "instructions": "good"}],
        "models": [shop.model],
        **fields,
    }


def begin(shop: Shop, **fields: Any) -> dict[str, Any]:
    answer = shop.call("POST", "/evaluations", body(shop, **fields))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def play(job: Job) -> Outcome:
    """`good` is right on all items, anything else on every third."""
    number = job.request_data["n"]
    right = job.instructions == "good" or number % 3 == 0
    return Completed(result={"text": str(number) if right else "no"})


def driven(shop: Shop, evaluation: dict[str, Any]) -> dict[str, Any]:
    """The evaluation at its end, with a worker that `play` is."""

    def ended() -> dict[str, Any] | None:
        jobs = shop.claim()
        shop.api.storage.jobs.settle([settled(job, play(job)) for job in jobs], CLOCK.now())
        for job in jobs:
            shop.api.signals.settled(job.id)
        shown: dict[str, Any] = shop.call("GET", f"/evaluations/{evaluation['evaluationId']}").json()
        return shown if shown["status"] != "RUNNING" else None

    return eventually(ended, what="the evaluation ended")


def test_an_evaluation_says_what_it_waits_for(shop: Shop) -> None:
    """While nobody takes its jobs it says why; one that has ended waits for nothing."""
    shop.api.optimizer.start()
    made = begin(shop)
    path = f"/evaluations/{made['evaluationId']}"
    waits = eventually(lambda: shop.call("GET", path).json()["waitsFor"], what="its jobs are in the queue")
    assert (waits["reason"], "evaluation" in waits["text"]) == ("no_worker", True)
    assert driven(shop, made)["waitsFor"] is None


def compared(shop: Shop, first: str, second: str, query: str = "") -> httpx.Response:
    return shop.call("GET", f"/evaluations/{first}/compare/{second}{query}")


def test_from_a_dataset_to_a_verdict(shop: Shop) -> None:
    """An evaluation runs by ordinary jobs to its end; its cells have means with intervals, its items their outputs, and
    the comparison says which is better and whether that is proven."""
    begun = begin(shop, maxParallel=50)
    assert (begun["status"], begun["total"], begun["done"], len(begun["cells"])) == ("RUNNING", 2 * ITEMS, 0, 2)
    assert_fits(begun, EvaluationResponse)
    early = compared(shop, begun["evaluationId"], begun["evaluationId"], "?otherCell=1")
    assert (early.status_code, f"0 of its {2 * ITEMS} answers" in early.json()["detail"]) == (400, True)
    shop.api.optimizer.start()
    done = driven(shop, begun)
    assert (done["status"], done["done"], done["failureReason"]) == ("COMPLETED", 2 * ITEMS, None)
    bad, good = done["cells"]
    assert (bad["mean"], good["mean"]) == (pytest.approx(1 / 3), 1.0)
    assert bad["interval"]["low"] < 1 / 3 < bad["interval"]["high"] < 0.6
    assert good["metrics"] == {"exact": 1.0}
    assert done["spent"]["work"]["inputTokens"] == 2 * ITEMS * 10
    assert_fits(done, EvaluationResponse)
    evaluation_id = done["evaluationId"]
    results = shop.call("GET", f"/evaluations/{evaluation_id}/results?limit=2&skip=2")
    assert results.headers["X-Total-Count"] == str(2 * ITEMS)
    wrong, right = results.json()
    assert (wrong["itemId"], wrong["cell"], wrong["output"], wrong["score"]) == ("2", 0, "no", 0.0)
    assert (right["itemId"], right["cell"], right["output"], right["score"]) == ("2", 1, "1", 1.0)
    assert_fits(wrong, ItemResultResponse)
    job = shop.get(wrong["jobId"])
    assert (job["status"], job["operation"]) == ("CONSUMED", "evaluation")
    assert job["clientReference"] == {"evaluationId": evaluation_id, "role": "work", "cell": 0, "exampleId": "2"}
    last = shop.call("GET", f"/evaluations/{evaluation_id}/results?limit=1&order=desc").json()
    assert [(each["itemId"], each["cell"]) for each in last] == [(str(ITEMS), 1)]
    better = compared(shop, evaluation_id, evaluation_id, "?otherCell=1").json()
    assert (better["verdict"], better["count"], better["gain"]) == ("better", ITEMS, pytest.approx(2 / 3))
    assert (better["wins"], better["losses"], better["ties"]) == (40, 0, 20)
    assert better["p"] < 0.001
    assert_fits(better, ComparisonResponse)
    assert compared(shop, evaluation_id, evaluation_id, "?cell=1").json()["verdict"] == "worse"
    assert compared(shop, evaluation_id, evaluation_id).json()["verdict"] == "not_proven"
    assert not better["weighted"]
    beyond = compared(shop, evaluation_id, evaluation_id, "?cell=2")
    assert (beyond.status_code, "cell: evaluation" in beyond.json()["detail"]) == (400, True)


def test_comparisons_are_weighted(shop: Shop) -> None:
    """Where items weigh differently, means, gain and test of a comparison count each by its weight."""
    items = [{"input": {"n": n}, "expected": str(n), "weight": 3 if n % 3 else 1} for n in range(12)]
    dataset = shop.call("POST", "/datasets", {"name": "weighted", "items": items}).json()["datasetId"]
    shop.api.optimizer.start()
    done = driven(shop, begin(shop, dataset=dataset, maxParallel=50))
    better = compared(shop, done["evaluationId"], done["evaluationId"], "?otherCell=1").json()
    assert (better["weighted"], better["mean"], better["otherMean"]) == (True, pytest.approx(4 / 28), 1.0)
    assert better["gain"] == pytest.approx(24 / 28)
    assert better["mean"] == pytest.approx(done["cells"][0]["mean"])
    assert_fits(better, ComparisonResponse)


@pytest.mark.parametrize("field", ["dataset", "evaluator", "models", "prompts"])
def test_what_an_evaluation_names_has_to_exist(shop: Shop, field: str) -> None:
    """A 400 says which kind is unknown, and nothing is stored."""
    unknown = {"models": ["none"], "prompts": [{"prompts": ["0" * 24]}]}.get(field, "0" * 24)
    answer = shop.call("POST", "/evaluations", body(shop, **{field: unknown}))
    assert (answer.status_code, answer.json()["detail"].startswith(field.rstrip("s"))) == (400, True)
    assert shop.call("GET", "/evaluations").json() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"prompts": []},
        {"prompts": [{}]},
        {"prompts": [{"instructions": "a"}, {"instructions": "a"}]},
        {"models": ["m", "m"]},
        {"models": []},
        {"maxParallel": 0},
        {"responseFormat": "xml"},
        {"maxParalell": 4},
    ],
)
def test_an_evaluation_that_cannot_be_is_422(shop: Shop, fields: dict[str, Any]) -> None:
    """Nothing to say, the same thing twice, limits, and a field that is none."""
    assert shop.call("POST", "/evaluations", body(shop, **fields)).status_code == 422


def test_too_many_cells(shop: Shop) -> None:
    """Prompts times models are bounded, and the refusal says by what."""
    prompts = [{"instructions": str(number)} for number in range(30)]
    answer = shop.call("POST", "/evaluations", body(shop, prompts=prompts, models=["a", "b"]))
    assert (answer.status_code, answer.json()["detail"]) == (400, "prompts: times models are 60, more than 50")


def test_ended_from_outside(shop: Shop) -> None:
    """Cancel takes its jobs back and is possible once; after a delete nothing shows it."""
    shop.api.optimizer.start()
    begun = begin(shop)
    path = f"/evaluations/{begun['evaluationId']}"
    eventually(shop.claim, what="its jobs are there")
    assert shop.call("POST", f"{path}/cancel").json()["status"] == "CANCELLED"
    eventually(lambda: _statuses(shop) == {JobState.CANCELED}, what="its jobs are taken back")
    assert shop.call("POST", f"{path}/cancel").status_code == 400
    listed = shop.call("GET", "/evaluations?status=CANCELLED")
    assert ([each["evaluationId"] for each in listed.json()], listed.headers["X-Total-Count"]) == (
        [begun["evaluationId"]],
        "1",
    )
    assert shop.call("DELETE", path).status_code == 204
    assert (shop.call("GET", path).status_code, shop.call("DELETE", path).status_code) == (404, 404)
    assert shop.as_admin("GET", "/evaluations").json() == []


def _statuses(shop: Shop) -> set[JobState]:
    return {job.status for job in shop.api.storage.jobs.find(JobQuery(client_id=shop.client_id), Page())}


def test_another_clients_evaluation_is_not_there(shop: Shop) -> None:
    """404 to look at, compare or delete, 400 to cancel, as an unknown one."""
    known = begin(shop)["evaluationId"]
    other = shop.api.new_client("other")
    for wanted in (known, "0" * 24, "no-id"):
        calls = [("GET", ""), ("GET", "/results"), ("GET", f"/compare/{known}"), ("DELETE", ""), ("POST", "/cancel")]
        statuses = [
            shop.api.http.request(method, f"/evaluations/{wanted}{tail}", headers=other).status_code
            for method, tail in calls
        ]
        assert statuses == [404, 404, 404, 404, 400]
    assert shop.api.http.get("/evaluations").status_code == 401


@pytest.mark.parametrize(("missing", "verdict"), [(10, "better"), (14, "not_proven")])
def test_too_many_without_a_score_prove_nothing(shop: Shop, missing: int, verdict: str) -> None:
    """Where more than a fifth of one side's answers have no score, what is left is compared and proves nothing."""
    items = [{"input": {"n": n}, "expected": str(n) if n >= missing else None} for n in range(ITEMS)]
    dataset = shop.call("POST", "/datasets", {"name": "gaps", "items": items}).json()["datasetId"]
    shop.api.optimizer.start()
    done = driven(shop, begin(shop, dataset=dataset, maxParallel=50))
    told = compared(shop, done["evaluationId"], done["evaluationId"], "?otherCell=1").json()
    assert (told["verdict"], told["count"]) == (verdict, ITEMS - missing)
    assert told["unscored"] == pytest.approx(missing / ITEMS)
    assert told["p"] < 0.001


def test_different_items_are_not_compared(shop: Shop) -> None:
    """Evaluations of two datasets, or by other metrics, are not paired, whatever their items are called."""
    first, later = begin(shop), begin(shop)
    metrics = [{"kind": "contains"}]
    looser = shop.call("POST", "/evaluators", {"name": "looser", "metrics": metrics}).json()["evaluatorId"]
    scored_otherwise = begin(shop, dataset=first["dataset"], evaluator=looser)
    for other in (later, scored_otherwise):
        answer = compared(shop, first["evaluationId"], other["evaluationId"])
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith("other:")
