"""Jobs that are held: by workers outside of this process, and taken from whoever holds them."""

from datetime import datetime, timedelta

import pytest

from engine.jobs.job import Call
from engine.jobs.outcome import Completed, Settlement
from tests.support.api import Api
from tests.support.factories import make_attempt
from tests.support.jobs_http import Shop, open_shop, together

FULL_CLAIM = {"status": "PROCESSING"}


@pytest.fixture
def shop(api: Api) -> Shop:
    return open_shop(api)


def left(shop: Shop, job: dict[str, object]) -> float:
    """Seconds until the lease in an answer ends."""
    lease = job["lease"]
    assert isinstance(lease, dict)
    return (datetime.fromisoformat(lease["expiresAt"]) - shop.api.clock.now()).total_seconds()


def heard_fences(shop: Shop) -> list[str]:
    fenced: list[str] = []
    shop.api.signals.subscribe(lambda jobs: None, fenced.append)
    return fenced


def test_claim_over_rest_gives_a_lease(shop: Shop) -> None:
    """PENDING to PROCESSING by /full gives a lease of leaseSeconds (60 by default) with its token."""
    first, second = shop.post()["jobId"], shop.post()["jobId"]
    by_default = shop.call("PATCH", f"/jobs/{first}/full", FULL_CLAIM).json()
    asked = shop.call("PATCH", f"/jobs/{second}/full", {**FULL_CLAIM, "leaseSeconds": 3600}).json()
    assert 50 < left(shop, by_default) <= 60
    assert 3590 < left(shop, asked) <= 3600
    assert by_default["leaseToken"] == 1
    assert by_default["lease"]["owner"] == f"rest:{shop.client_id}"
    assert shop.claim() == []


def test_lease_that_ran_out_gives_the_job_back(shop: Shop) -> None:
    """A client's lease is one like any other: when it has expired, recovery finds the job."""
    job_id = shop.post()["jobId"]
    shop.call("PATCH", f"/jobs/{job_id}/full", {**FULL_CLAIM, "leaseSeconds": 1})
    queue, now = shop.api.storage.jobs, shop.api.clock.now()
    assert queue.expired(now, 10) == []
    assert [job.id for job in queue.expired(now + timedelta(seconds=1.1), 10)] == [job_id]


def test_holder_extends_its_lease(shop: Shop) -> None:
    """leaseSeconds alone extends the caller's lease, with or without its token, and keeps the token."""
    job_id = shop.post()["jobId"]
    path = f"/jobs/{job_id}/full"
    token = shop.call("PATCH", path, FULL_CLAIM).json()["leaseToken"]
    longer = shop.call("PATCH", path, {"leaseSeconds": 600}).json()
    assert left(shop, longer) > 590
    longest = shop.call("PATCH", path, {"leaseSeconds": 1200, "leaseToken": token}).json()
    assert left(shop, longest) > 1190
    assert (longest["leaseToken"], longest["status"]) == (token, "PROCESSING")


def test_stale_lease_token_is_refused(shop: Shop) -> None:
    """Whatever is sent with a token that is not current is 400 with `transition`, and nothing changes."""
    job_id = shop.post()["jobId"]
    path = f"/jobs/{job_id}/full"
    shop.call("PATCH", path, FULL_CLAIM)
    assert shop.as_admin("PATCH", f"/jobs/{job_id}", {"status": "PENDING"}).status_code == 200
    current = shop.call("PATCH", path, FULL_CLAIM).json()
    for change in ({"status": "PROCESSED"}, {"leaseSeconds": 5}, {"priority": 1}, {"status": "ERROR_PROCESSING"}):
        answer = shop.call("PATCH", path, {**change, "leaseToken": 1})
        assert answer.status_code == 400
        assert "transition" in answer.json()["detail"]
    assert shop.get(job_id) == current
    done = shop.call("PATCH", path, {"status": "PROCESSED", "leaseToken": current["leaseToken"], "responseData": {}})
    assert (done.json()["status"], done.json()["lease"], done.json()["leaseToken"]) == ("PROCESSED", None, None)


def test_huge_lease_token_is_just_wrong(shop: Shop) -> None:
    """A token beyond every integer is stale, not an error of the service."""
    job_id = shop.bring_to("PROCESSING")
    assert shop.call("PATCH", f"/jobs/{job_id}/full", {"leaseToken": 2**62}).status_code == 400
    assert shop.call("PATCH", f"/jobs/{job_id}/full", {"leaseToken": 1.0, "priority": 2}).status_code == 200


def test_lease_of_a_worker_is_not_the_clients(shop: Shop) -> None:
    """A lease that a worker holds is not extended by a client that does not know its token."""
    job_id = shop.post()["jobId"]
    shop.claim()
    answer = shop.call("PATCH", f"/jobs/{job_id}/full", {"leaseSeconds": 5})
    assert answer.status_code == 400
    assert "transition" in answer.json()["detail"]


def test_nothing_to_extend(shop: Shop) -> None:
    """A job that nobody holds has no lease to extend: 400 with `transition`."""
    answer = shop.call("PATCH", f"/jobs/{shop.post()['jobId']}/full", {"leaseSeconds": 5})
    assert answer.status_code == 400
    assert "transition" in answer.json()["detail"]


def test_job_that_is_not_due_cannot_be_claimed(shop: Shop) -> None:
    """A client outside gets no job before its notBefore time, as no worker does."""
    job_id = shop.post(notBefore="2100-01-01T00:00:00Z")["jobId"]
    answer = shop.call("PATCH", f"/jobs/{job_id}/full", FULL_CLAIM)
    assert answer.status_code == 400
    assert "transition" in answer.json()["detail"]


def test_not_before_can_be_moved(shop: Shop) -> None:
    """notBefore of a waiting job can be changed both ways; of any other job it is 400."""
    job_id = shop.post()["jobId"]
    path = f"/jobs/{job_id}/full"
    assert shop.call("PATCH", path, {"notBefore": "2100-01-01T00:00:00Z"}).status_code == 200
    assert shop.claim() == []
    assert shop.call("PATCH", path, {"notBefore": "2020-01-01T00:00:00Z"}).status_code == 200
    assert [job.id for job in shop.claim()] == [job_id]
    refused = shop.call("PATCH", path, {"notBefore": "2100-01-01T00:00:00Z"})
    assert refused.status_code == 400
    assert "notBefore" in refused.json()["detail"]


@pytest.mark.parametrize("how", ["cancel", "delete", "batch delete", "complete", "requeue"])
def test_taking_a_running_job_drops_its_call(shop: Shop, how: str) -> None:
    """Whatever takes a job from its holder tells the consumers of this process, and the holder's late write fails."""
    job_id = shop.post()["jobId"]
    (held,) = shop.claim()
    fenced = heard_fences(shop)
    answer = {
        "cancel": lambda: shop.call("PATCH", f"/jobs/{job_id}", {"status": "CANCELED"}),
        "delete": lambda: shop.call("DELETE", f"/jobs/{job_id}"),
        "batch delete": lambda: shop.call("DELETE", "/jobs/batch", {"jobIds": [job_id]}),
        "complete": lambda: shop.call("PATCH", f"/jobs/{job_id}/full", {"status": "PROCESSED", "responseData": {}}),
        "requeue": lambda: shop.as_admin("PATCH", f"/jobs/{job_id}", {"status": "PENDING"}),
    }[how]()
    assert answer.status_code in (200, 204)
    assert fenced == [job_id]
    late = Settlement(job_id=job_id, token=held.token, outcome=Completed(result={"late": True}))
    assert shop.api.storage.jobs.settle([late], shop.api.clock.now()) == [False]


def test_jobs_that_become_ready_wake_workers(shop: Shop) -> None:
    """A redriven, reopened or requeued job is told to the consumers of this process."""
    failed, canceled, running = (shop.bring_to(status) for status in ("ERROR_PROCESSING", "CANCELED", "PROCESSING"))
    ready: list[str] = []
    shop.api.signals.subscribe(lambda jobs: ready.extend(job.id for job in jobs), lambda job_id: None)
    shop.call("PATCH", f"/jobs/{failed}", {"status": "PENDING"})
    shop.as_admin("PATCH", f"/jobs/{canceled}", {"status": "PENDING"})
    shop.as_admin("PATCH", f"/jobs/{running}", {"status": "PENDING"})
    assert ready == [failed, canceled, running]


def test_edits_of_a_running_job_take_effect(shop: Shop) -> None:
    """An edit made after the claim is what the holder sees when it looks again, and its result keeps it."""
    job_id = shop.post()["jobId"]
    (held,) = shop.claim()
    assert shop.call("PATCH", f"/jobs/{job_id}/full", {"temperature": 0.25}).status_code == 200
    queue = shop.api.storage.jobs
    seen = queue.get(job_id)
    assert seen is not None
    assert (seen.temperature, seen.token) == (0.25, held.token)
    written = queue.settle(
        [Settlement(job_id=job_id, token=held.token, outcome=Completed(result={"a": 1}))], shop.api.clock.now()
    )
    job = shop.get(job_id)
    assert written == [True]
    assert (job["status"], job["temperature"], job["responseData"]) == ("PROCESSED", 0.25, {"a": 1})


def test_steps_show_every_provider_call(shop: Shop) -> None:
    """`steps` has each call with step, model, tokens, duration, costs and outcome; processingMetrics is their sum."""
    job_id = shop.post()["jobId"]
    (held,) = shop.claim()
    attempt = make_attempt(held.token)
    call: Call = attempt.calls[0]
    now = shop.api.clock.now()
    outcome = Completed(result={"a": 1})
    shop.api.storage.jobs.settle([Settlement(job_id=job_id, token=held.token, outcome=outcome, attempt=attempt)], now)
    job = shop.get(job_id)
    (step,) = job["steps"]
    assert (step["step"], step["model"], step["outcome"], step["attempt"]) == ("work", call.model, "ok", held.token)
    assert (step["inputTokens"], step["outputTokens"], step["totalTokens"], step["duration"]) == (10, 20, 30, 0.5)
    metrics = job["processingMetrics"]
    assert (metrics["inputTokens"], metrics["outputTokens"], metrics["totalTokens"]) == (10, 20, 30)
    assert (metrics["inputCost"], metrics["outputCost"], metrics["currency"]) == (0.001, 0.002, "USD")
    assert metrics["totalCost"] == step["totalCost"] == metrics["inputCost"] + metrics["outputCost"]
    assert [entry["outcome"] for entry in job["attempts"]] == ["completed"]
    assert job["answeredBy"] == call.model


def test_one_of_many_claims_wins(shop: Shop) -> None:
    """Of eight clients that claim a job at once exactly one gets it, the others a refused transition."""
    job_id = shop.post()["jobId"]
    answers = together(8, lambda _: shop.call("PATCH", f"/jobs/{job_id}/full", FULL_CLAIM))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7
    assert all("transition" in answer.json()["detail"] for answer in answers if answer.status_code == 400)
    assert shop.get(job_id)["leaseToken"] == 1


def test_concurrent_edits_are_all_kept(shop: Shop) -> None:
    """Edits of different fields at the same time are all there afterwards."""
    job_id = shop.post()["jobId"]
    edits = [{"temperature": 0.9}, {"priority": 77}, {"operation": "x"}, {"requestData": {"b": 1}}, {"maxAttempts": 3}]
    answers = together(len(edits), lambda number: shop.call("PATCH", f"/jobs/{job_id}/full", edits[number]))
    assert [answer.status_code for answer in answers] == [200] * len(edits)
    job = shop.get(job_id)
    for edit in edits:
        assert edit.items() <= job.items()


@pytest.mark.parametrize("round_", range(5))
def test_cancel_races_with_completion(shop: Shop, round_: int) -> None:
    """Cancel and completion in the same instant: the job ends canceled either way, and the counts stay exact."""
    job_id = shop.post()["jobId"]
    (held,) = shop.claim()
    done = Settlement(job_id=job_id, token=held.token, outcome=Completed(result={}), attempt=make_attempt(held.token))

    def act(number: int) -> object:
        if number == 0:
            return shop.call("PATCH", f"/jobs/{job_id}", {"status": "CANCELED"}).status_code
        return shop.api.storage.jobs.settle([done], shop.api.clock.now())

    canceled, _settled = together(2, act)
    assert canceled == 200
    assert shop.get(job_id)["status"] == "CANCELED"
    summary = shop.call("GET", "/jobs/summary").json()
    assert (summary["CANCELED"], summary["total"]) == (1, 1)


def test_repeated_cancel_is_harmless(shop: Shop) -> None:
    """Of many cancels at once one is done and the others are refused; the count is one."""
    job_id = shop.post()["jobId"]
    answers = together(6, lambda _: shop.call("PATCH", f"/jobs/{job_id}", {"status": "CANCELED"}).status_code)
    assert sorted(answers) == [200] + [400] * 5
    assert shop.call("GET", "/jobs/summary").json()["CANCELED"] == 1


def test_delete_races_with_everything(shop: Shop) -> None:
    """Of many deletes at once at least one is 204, the others 204 or 404, and the job is gone."""
    job_id = shop.post()["jobId"]
    answers = together(6, lambda _: shop.call("DELETE", f"/jobs/{job_id}").status_code)
    assert 204 in answers
    assert set(answers) <= {204, 404}
    assert shop.call("GET", "/jobs/summary").json()["total"] == 0
