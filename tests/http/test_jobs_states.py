"""PATCH of jobs, by the two tables of the contract's section 6, and what else changes and deletes them."""

from typing import Any

import pytest

from tests.support.api import Api
from tests.support.jobs_http import STATUSES, Shop, open_shop

ERRORS = ("ERROR_PROCESSING", "ERROR_CONSUMING")

CLIENT_PATCH: dict[str, set[str]] = {
    "PENDING": {"CANCELED"},
    "PROCESSING": {"CANCELED"},
    "PROCESSED": {"CONSUMED", "ERROR_CONSUMING", "CANCELED"},
    "CONSUMED": set(),
    "ERROR_PROCESSING": {"PENDING"},
    "ERROR_CONSUMING": {"PROCESSED"},
    "CANCELED": set(),
}
CLIENT_FULL: dict[str, set[str]] = {
    **{status: set() for status in STATUSES},
    "PENDING": {"PROCESSING"},
    "PROCESSING": {"PROCESSED", "ERROR_PROCESSING"},
}
ADMIN_PATCH = {
    status: CLIENT_PATCH[status] | set(ERRORS) | ({"PENDING"} if status in ("PROCESSING", "CANCELED") else set())
    for status in STATUSES
}
ADMIN_FULL = {
    status: CLIENT_FULL[status]
    | set(ERRORS)
    | ({"CANCELED"} if status == "PENDING" else {"PENDING"} if status == "CANCELED" else set())
    for status in STATUSES
}
SURFACES = {
    ("client", ""): CLIENT_PATCH,
    ("client", "/full"): CLIENT_FULL,
    ("admin", ""): ADMIN_PATCH,
    ("admin", "/full"): ADMIN_FULL,
}


@pytest.fixture
def shop(api: Api) -> Shop:
    return open_shop(api)


@pytest.fixture
def local(local_api: Api) -> Shop:
    return open_shop(local_api)


def wish(shop: Shop, who: str, path: str, body: dict[str, Any]) -> Any:
    return shop.call("PATCH", path, body) if who == "client" else shop.as_admin("PATCH", path, body)


@pytest.mark.parametrize("source", STATUSES)
@pytest.mark.parametrize(("who", "surface"), SURFACES)
def test_transitions_are_those_of_the_tables(local: Shop, who: str, surface: str, source: str) -> None:
    """From each status each wished-for one is 200, or 400 with `transition` in the text, as the tables say."""
    allowed = SURFACES[who, surface][source]
    for wanted in STATUSES:
        job_id = local.bring_to(source)
        answer = wish(local, who, f"/jobs/{job_id}{surface}", {"status": wanted})
        if wanted in allowed:
            assert (answer.status_code, answer.json()["status"]) == (200, wanted)
        else:
            assert answer.status_code == 400, (source, wanted)
            assert "transition" in answer.json()["detail"]
        assert local.get(job_id)["status"] == (wanted if wanted in allowed else source)


@pytest.mark.parametrize("source", STATUSES)
@pytest.mark.parametrize("who", ["client", "admin"])
def test_batch_goes_by_the_table_of_full(local: Shop, who: str, source: str) -> None:
    """PATCH /jobs/batch allows exactly what /full allows."""
    allowed = SURFACES[who, "/full"][source]
    for wanted in STATUSES:
        job_id = local.bring_to(source)
        answer = wish(local, who, "/jobs/batch", {"jobs": [{"jobId": job_id, "status": wanted}]})
        assert answer.status_code == (200 if wanted in allowed else 400), (source, wanted)
        assert local.get(job_id)["status"] == (wanted if wanted in allowed else source)


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_is_reached_on_each_back_end(shop: Shop, status: str) -> None:
    """A job can be brought into every status, and shows it."""
    job = shop.get(shop.bring_to(status))
    assert job["status"] == status
    assert job["_metadata"]["updatedBy"] == (None if status == "PENDING" else shop.client_id)


@pytest.mark.parametrize("surface", ["", "/full"])
def test_unknown_status_is_422(local: Shop, surface: str) -> None:
    """A status that does not exist is a failed validation; PATCH needs one."""
    job_id = local.post()["jobId"]
    assert local.call("PATCH", f"/jobs/{job_id}{surface}", {"status": "DONE"}).status_code == 422
    assert local.call("PATCH", f"/jobs/{job_id}", {}).status_code == 422


def test_foreign_unknown_and_malformed_ids_answer_alike(shop: Shop) -> None:
    """GET and DELETE 404, PATCH, /full and both batches 400; the batches' text has `Job not found`."""
    foreign = open_shop(shop.api).post()["jobId"]
    for job_id in (foreign, "a" * 24, "nonsense", "%00", "A" * 5000):
        assert shop.call("GET", f"/jobs/{job_id}").status_code == 404
        assert shop.call("GET", f"/jobs/{job_id}/explain").status_code == 404
        assert shop.call("DELETE", f"/jobs/{job_id}").status_code == 404
        assert shop.call("PATCH", f"/jobs/{job_id}", {"status": "CANCELED"}).status_code == 400
        assert shop.call("PATCH", f"/jobs/{job_id}/full", {"priority": 1}).status_code == 400
    own = shop.post()["jobId"]
    for job_id in (foreign, "a" * 24, "nonsense", "\0"):
        changed = shop.call("PATCH", "/jobs/batch", {"jobs": [{"jobId": own, "priority": 1}, {"jobId": job_id}]})
        deleted = shop.call("DELETE", "/jobs/batch", {"jobIds": [own, job_id]})
        assert (changed.status_code, deleted.status_code) == (400, 400)
        assert "Job not found" in changed.json()["detail"]
        assert "Job not found" in deleted.json()["detail"]
    assert shop.get(own)["priority"] == 5


def test_admin_sees_and_changes_every_job(shop: Shop) -> None:
    """An admin reads, changes and deletes any client's job; the history says so."""
    job_id = shop.post()["jobId"]
    assert shop.as_admin("GET", f"/jobs/{job_id}").status_code == 200
    changed = shop.as_admin("PATCH", f"/jobs/{job_id}/full", {"priority": 9}).json()
    assert (changed["priority"], changed["_metadata"]["updatedBy"]) == (9, "admin")
    assert shop.as_admin("DELETE", f"/jobs/{job_id}").status_code == 204
    assert shop.call("GET", f"/jobs/{job_id}").status_code == 404


def test_full_changes_fields(shop: Shop) -> None:
    """/full changes whatever was given at creation and leaves the rest; the answer is what GET shows."""
    job = shop.post(clientReference={"a": 1})
    other = shop.api.new_prompt(shop.headers)["_id"]
    change = {
        "operation": "translate",
        "workingPrompts": [other, shop.prompt],
        "temperature": 0.0,
        "priority": 1000,
        "requestData": {"new": [1, 2]},
        "clientReference": {"b": 2},
        "evalPrompt": shop.prompt,
        "evalModel": shop.model,
        "evalResult": {"score": 1},
        "suggestedPromptId": other,
        "maxAttempts": 2,
        "responseFormat": "text",
    }
    answer = shop.call("PATCH", f"/jobs/{job['jobId']}/full", change)
    assert answer.status_code == 200
    assert {name: answer.json()[name] for name in change} == change
    assert answer.json()["metaPrompt"] is None
    assert answer.json()["prompts"] == change["workingPrompts"]
    assert shop.get(job["jobId"]) == answer.json()


def test_null_and_nothing_leave_a_job_as_it_is(shop: Shop) -> None:
    """An empty /full, or one with nulls only, is 200 and changes nothing, not even updatedAt."""
    job = shop.post(clientReference={"a": 1}, id="mine")
    for body in ({}, {"operation": None, "status": None, "clientReference": None, "prompts": None}):
        answer = shop.call("PATCH", f"/jobs/{job['jobId']}/full", body)
        assert (answer.status_code, answer.json()) == (200, job)


def test_empty_texts_remove_a_pair(local: Shop) -> None:
    """An evaluation is removed by giving both its prompt and its model as "", and only by both."""
    job = local.post(evalPrompt=local.prompt, evalModel=local.model)
    path = f"/jobs/{job['jobId']}/full"
    assert local.call("PATCH", path, {"evalPrompt": ""}).status_code == 400
    answer = local.call("PATCH", path, {"evalPrompt": "", "evalModel": ""})
    assert (answer.json()["evalPrompt"], answer.json()["evalModel"]) == (None, None)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"temperature": 1.1}, 422),
        ({"priority": 0}, 422),
        ({"requestData": 5}, 422),
        ({"leaseSeconds": 0}, 422),
        ({"leaseSeconds": 3601}, 422),
        ({"maxAttempts": 21}, 422),
        ({"responseFormat": {"type": "json_schema", "schema": {"type": 5}}}, 422),
        ({"operation": ""}, 400),
        ({"model": ""}, 400),
        ({"prompts": []}, 400),
        ({"model": "nobody"}, 400),
        ({"prompts": ["d" * 24]}, 400),
        ({"evalPrompt": "d" * 24}, 400),
        ({"metaModel": "nobody"}, 400),
    ],
)
@pytest.mark.parametrize("batch", [False, True])
def test_changes_are_judged_like_new_jobs(local: Shop, change: dict[str, Any], status: int, batch: bool) -> None:
    """A value that would not be accepted in a new job is not accepted in a change, and nothing changes."""
    job = local.post()
    path = "/jobs/batch" if batch else f"/jobs/{job['jobId']}/full"
    body = {"jobs": [{"jobId": job["jobId"], **change}]} if batch else change
    assert local.call("PATCH", path, body).status_code == status
    assert local.get(job["jobId"]) == job


def test_change_may_not_use_a_foreign_private_prompt(local: Shop) -> None:
    """/full refuses another client's private prompt as unknown; an admin may use any."""
    foreign = open_shop(local.api).prompt
    job_id = local.post()["jobId"]
    answer = local.call("PATCH", f"/jobs/{job_id}/full", {"prompts": [foreign]})
    assert answer.status_code == 400
    assert "prompt" in answer.json()["detail"]
    assert local.as_admin("PATCH", f"/jobs/{job_id}/full", {"prompts": [foreign]}).status_code == 200


def test_batch_changes_all_or_nothing(shop: Shop) -> None:
    """PATCH /jobs/batch answers in order; if one change is not possible none is made; one job may come twice."""
    first, second = shop.post()["jobId"], shop.bring_to("CONSUMED")
    refused = [{"jobId": first, "priority": 9}, {"jobId": second, "status": "PROCESSING"}]
    answer = shop.call("PATCH", "/jobs/batch", {"jobs": refused})
    assert answer.status_code == 400
    assert "transition" in answer.json()["detail"]
    assert shop.get(first)["priority"] == 5
    twice = [{"jobId": second, "priority": 7}, {"jobId": first, "priority": 8}, {"jobId": second, "temperature": 0.1}]
    jobs = shop.call("PATCH", "/jobs/batch", {"jobs": twice}).json()
    assert [(job["jobId"], job["priority"]) for job in jobs] == [(second, 7), (first, 8), (second, 7)]
    assert jobs[0]["temperature"] == 0.1


@pytest.mark.parametrize("name", ["jobIds", "ids"])
def test_batch_delete_takes_both_names(shop: Shop, name: str) -> None:
    """DELETE /jobs/batch is 204 without a JSON content type, by `jobIds` or `ids`; repeated ids count once."""
    first, second = shop.post()["jobId"], shop.post()["jobId"]
    answer = shop.call("DELETE", "/jobs/batch", {name: [first, second, first]})
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["content-type"].startswith("text/plain")
    assert shop.call("GET", "/jobs").json() == []


@pytest.mark.parametrize("body", [{}, {"jobIds": []}, {"ids": "x"}, {"jobIds": [5]}])
def test_malformed_batch_deletes_are_422(local: Shop, body: Any) -> None:
    """A batch delete without ids is a failed validation."""
    assert local.call("DELETE", "/jobs/batch", body).status_code == 422


@pytest.mark.parametrize("status", STATUSES)
def test_deleted_jobs_are_gone_for_everybody(shop: Shop, status: str) -> None:
    """A job can be deleted in every status; it is then invisible to reads, counts and workers, an admin's too."""
    job_id = shop.bring_to(status)
    answer = shop.call("DELETE", f"/jobs/{job_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert shop.call("GET", f"/jobs/{job_id}").status_code == 404
    assert shop.as_admin("GET", f"/jobs/{job_id}").status_code == 404
    assert shop.call("DELETE", f"/jobs/{job_id}").status_code == 404
    assert shop.call("GET", "/jobs/summary").json()["total"] == 0
    assert shop.claim() == []


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ({"a": [1]}, {"a": [1]}),
        ([1, 2], {"value": [1, 2]}),
        ("text", {"value": "text"}),
        (0, {"value": 0}),
        (None, None),
    ],
)
def test_results_are_always_objects(shop: Shop, sent: Any, stored: Any) -> None:
    """A result that is a JSON list or scalar is stored as {"value": …}, an object as it is."""
    job_id = shop.bring_to("PROCESSING")
    answer = shop.call("PATCH", f"/jobs/{job_id}/full", {"status": "PROCESSED", "responseData": sent})
    assert answer.json()["responseData"] == stored
    assert shop.get(job_id)["responseData"] == stored


def test_reported_errors_are_shown(shop: Shop) -> None:
    """errorData sent with ERROR_PROCESSING comes back with attempts and timestamp; a redrive clears it."""
    job_id = shop.bring_to("PROCESSING")
    told = {"errorType": "Odd", "errorMessage": "went wrong", "failedResponseData": "raw"}
    failed = shop.call("PATCH", f"/jobs/{job_id}/full", {"status": "ERROR_PROCESSING", "errorData": told}).json()
    assert failed["errorData"] == {**told, "attempts": 1, "timestamp": failed["_metadata"]["updatedAt"]}
    assert shop.get(job_id)["errorData"] == failed["errorData"]
    again = shop.call("PATCH", f"/jobs/{job_id}", {"status": "PENDING"}).json()
    assert (again["status"], again["errorData"]) == ("PENDING", None)
    assert [job.id for job in shop.claim()] == [job_id]


def test_forced_error_says_who_forced_it(local: Shop) -> None:
    """A job that an admin puts into ERROR_PROCESSING has errorData that says so."""
    job_id = local.bring_to("CONSUMED")
    answer = local.as_admin("PATCH", f"/jobs/{job_id}", {"status": "ERROR_PROCESSING"})
    assert answer.json()["errorData"]["errorType"] == "ForcedByAdmin"
    assert "admin" in answer.json()["errorData"]["errorMessage"]
