"""POST /jobs and /jobs/batch: contract, section 6."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine.jobs.job import Job
from engine.jobs.queue import JobQuery
from tests.support.api import Api
from tests.support.jobs_http import Shop, open_shop

KEYS = {
    *(
        "jobId",
        "clientId",
        "status",
        "operation",
        "prompts",
        "workingPrompts",
        "model",
        "temperature",
        "priority",
        "id",
    ),
    *("requestData", "responseData", "processingMetrics", "clientReference", "evalPrompt", "evalModel", "metaPrompt"),
    *("evaluator", "expected"),
    *("metaModel", "evalResult", "suggestedPromptId", "_metadata", "errorData", "responseFormat", "endpoint"),
    *("maxAttempts", "promptFlow", "canary"),
    *(
        "notBefore",
        "lease",
        "leaseToken",
        "attempts",
        "steps",
        "answeredBy",
        "_id",
        "createdAt",
    ),
}


@pytest.fixture
def shop(api: Api) -> Shop:
    return open_shop(api)


@pytest.fixture
def local(local_api: Api) -> Shop:
    return open_shop(local_api)


def test_new_job_waits_and_shows_every_key(shop: Shop) -> None:
    """POST /jobs is 201 with a PENDING job; all keys are present, null where nothing was set."""
    answer = shop.call("POST", "/jobs", shop.body())
    job = answer.json()
    assert answer.status_code == 201
    assert set(job) == KEYS
    assert (job["status"], job["clientId"], job["operation"]) == ("PENDING", shop.client_id, "summarize")
    assert (job["temperature"], job["priority"], job["requestData"]) == (0.5, 5, {"text": "hello"})
    assert all(
        job[key] is None
        for key in (
            "evaluator",
            "expected",
            "responseData",
            "answeredBy",
            "errorData",
            "lease",
            "id",
            "clientReference",
            "notBefore",
        )
    )
    assert job["_metadata"]["createdBy"] == shop.client_id
    assert job["_id"] == job["jobId"]
    assert job["createdAt"] == job["_metadata"]["createdAt"]
    assert shop.get(job["jobId"]) == job


def test_every_field_comes_back(shop: Shop) -> None:
    """What was sent is what GET shows: the client's id, references, both pairs, format, attempts, not-before time."""
    body = shop.body(
        id="mine-1",
        clientReference={"order": 5, "deep": {"er": True}},
        evalPrompt=shop.prompt,
        evalModel=shop.model,
        metaPrompt=shop.prompt,
        metaModel=shop.model,
        responseFormat={"type": "json_schema", "schema": {"type": "object"}},
        maxAttempts=7,
        notBefore="2031-02-03T04:05:06.789Z",
    )
    job = shop.get(shop.call("POST", "/jobs", body).json()["jobId"])
    for name in set(body) - {"notBefore"}:
        assert job[name] == body[name]
    assert datetime.fromisoformat(job["notBefore"]) == datetime(2031, 2, 3, 4, 5, 6, 789000, UTC)


def test_working_prompts_win(shop: Shop) -> None:
    """`prompts` and `workingPrompts` show the same list; on input workingPrompts wins."""
    other = shop.api.new_prompt(shop.headers)["_id"]
    job = shop.post(workingPrompts=[other])
    assert job["prompts"] == job["workingPrompts"] == [other]


def test_unknown_fields_are_ignored(local: Shop) -> None:
    """A body field that nobody knows does no harm."""
    assert local.post(nonsense={"a": 1})["status"] == "PENDING"


@pytest.mark.parametrize(
    "fields",
    [
        {"operation": None},
        {"operation": ""},
        {"model": None},
        {"model": ""},
        {"prompts": []},
        {"prompts": None},
        {"prompts": "text"},
        {"temperature": 1.01},
        {"temperature": -0.1},
        {"temperature": None},
        {"priority": 0},
        {"priority": 1001},
        {"priority": 1.5},
        {"requestData": None},
        {"requestData": [1]},
        {"clientReference": []},
        {"maxAttempts": 0},
        {"maxAttempts": 21},
        {"notBefore": "soon"},
        {"notBefore": 12},
        {"notBefore": "0001-01-01T00:00:00+14:00"},
        {"responseFormat": "xml"},
        {"responseFormat": {"type": "json_schema"}},
        {"responseFormat": {"type": "json_schema", "schema": {"type": "nonsense"}}},
        {"responseFormat": {"type": "json_schema", "schema": {"$ref": "http://127.0.0.1/schema"}}},
        {"responseFormat": {"type": "json_schema", "schema": {"pattern": "("}}},
    ],
)
def test_limits_are_422(local: Shop, fields: dict[str, Any]) -> None:
    """A value outside of its limits is 422 with `detail` = list of {type, loc, msg, input}, and nothing is stored."""
    body = {name: value for name, value in {**local.body(), **fields}.items() if value is not None}
    answer = local.call("POST", "/jobs", body)
    assert answer.status_code == 422
    assert all({"type", "loc", "msg", "input"} <= set(problem) for problem in answer.json()["detail"])
    assert local.call("GET", "/jobs").json() == []


def test_validation_goes_before_authentication(local: Shop) -> None:
    """On this endpoint 422 beats 401, and 401 beats 400."""
    http = local.api.http
    assert http.post("/jobs", json={}).status_code == 422
    refused = http.post("/jobs", json=local.body(model="no-such-model"))
    assert refused.status_code == 401
    assert "Client ID" in refused.json()["detail"]
    assert "authentication" in refused.json()["detail"]


@pytest.mark.parametrize("text", ["", "{", "[1", '{"a": NaN}', '"\\ud800"', "nul"])
def test_what_is_no_json_is_422(local: Shop, text: str) -> None:
    """A body that is no JSON is a failed validation."""
    headers = {**local.headers, "content-type": "application/json"}
    assert local.api.http.post("/jobs", content=text, headers=headers).status_code == 422


def test_unknown_references_are_refused(shop: Shop) -> None:
    """An unknown prompt or model is 400 with `prompt` or `model` in the text; an empty list stays."""
    unknown = "f" * 24
    for fields, word in [
        ({"prompts": [shop.prompt, unknown]}, "prompt"),
        ({"prompts": ["no id"]}, "prompt"),
        ({"model": "nobody"}, "model"),
        ({"evalPrompt": unknown, "evalModel": shop.model}, "prompt"),
        ({"metaPrompt": shop.prompt, "metaModel": "nobody"}, "model"),
    ]:
        answer = shop.call("POST", "/jobs", shop.body(**fields))
        assert answer.status_code == 400
        assert word in answer.json()["detail"]
    assert shop.call("GET", "/jobs").json() == []


@pytest.mark.parametrize("half", ["evalPrompt", "evalModel", "metaPrompt", "metaModel"])
def test_half_a_pair_is_refused(local: Shop, half: str) -> None:
    """An evaluation or meta step with only one of prompt and model is 400."""
    value = local.prompt if half.endswith("Prompt") else local.model
    answer = local.call("POST", "/jobs", local.body(**{half: value}))
    assert answer.status_code == 400
    assert "prompt" in answer.json()["detail"]
    assert "model" in answer.json()["detail"]


def test_private_prompt_of_another_client_does_not_exist(shop: Shop) -> None:
    """Public prompts and the client's own may be used; another's is refused as if there were none; an admin may."""
    other = open_shop(shop.api)
    public = shop.api.new_prompt(shop.api.admin, isPublic=True)["_id"]
    foreign = shop.call("POST", "/jobs", shop.body(prompts=[other.prompt]))
    unknown = shop.call("POST", "/jobs", shop.body(prompts=["e" * 24]))
    assert foreign.status_code == unknown.status_code == 400
    assert foreign.json()["detail"].replace(other.prompt, "") == unknown.json()["detail"].replace("e" * 24, "")
    assert shop.call("POST", "/jobs", shop.body(prompts=[public])).status_code == 201
    by_admin = {**shop.api.admin, "client_id": shop.client_id}
    assert shop.api.http.post("/jobs", json=shop.body(prompts=[other.prompt]), headers=by_admin).status_code == 201


def test_deleted_prompt_and_model_are_unknown_at_once(shop: Shop) -> None:
    """A prompt or model deleted through this replica can be named no more, however recently it was used."""
    model = shop.api.new_model(name="short-lived")
    shop.post(model="short-lived")
    assert shop.call("DELETE", f"/prompts/{shop.prompt}").status_code == 204
    assert shop.call("POST", "/jobs", shop.body()).status_code == 400
    assert shop.as_admin("DELETE", f"/models/{model['model_id']}").status_code == 204
    prompt = shop.api.new_prompt(shop.headers)["_id"]
    assert shop.call("POST", "/jobs", shop.body(model="short-lived", prompts=[prompt])).status_code == 400


def test_admin_names_the_owner(shop: Shop) -> None:
    """An admin names the owner by a bare client_id header, which is not checked; without it 400; both valid: client."""
    http, admin = shop.api.http, shop.api.admin
    assert http.post("/jobs", json=shop.body(), headers=admin).status_code == 400
    made = http.post("/jobs", json=shop.body(), headers={**admin, "client_id": "admin"}).json()
    assert (made["clientId"], made["_metadata"]["createdBy"]) == ("admin", "admin")
    both = http.post("/jobs", json=shop.body(), headers={**admin, **shop.headers}).json()
    assert both["clientId"] == shop.client_id


def test_new_jobs_are_told_to_workers_here(local: Shop) -> None:
    """Consumers of this process hear of every job that was stored, single or in a batch."""
    heard: list[str] = []
    local.api.signals.subscribe(lambda jobs: heard.extend(job.id for job in jobs), lambda job_id: None)
    single = local.post()
    batch = local.call("POST", "/jobs/batch", {"jobs": [local.body(), local.body()]}).json()
    assert heard == [single["jobId"], *(job["jobId"] for job in batch)]


def test_batch_answers_in_order(shop: Shop) -> None:
    """POST /jobs/batch is 201 with the jobs in the order of the request, which is also the list's."""
    bodies = [shop.body(priority=number, id=str(number)) for number in (3, 1, 2)]
    answer = shop.call("POST", "/jobs/batch", {"jobs": bodies})
    assert answer.status_code == 201
    assert [job["priority"] for job in answer.json()] == [3, 1, 2]
    assert answer.json() == shop.call("GET", "/jobs").json()


def test_batch_is_all_or_nothing(shop: Shop) -> None:
    """One bad job fails a batch: 400 with the position from 1, `batch`, and `prompt` or `model`; nothing is stored."""
    good = shop.body()
    cases = [
        ({"model": "nobody"}, "model"),
        ({"prompts": ["c" * 24]}, "prompt"),
        ({"evalPrompt": shop.prompt}, "prompt"),
    ]
    for fields, word in cases:
        answer = shop.call("POST", "/jobs/batch", {"jobs": [good, good, shop.body(**fields)]})
        detail = answer.json()["detail"]
        assert answer.status_code == 400
        assert "batch" in detail
        assert "3" in detail
        assert word in detail
    assert shop.call("GET", "/jobs").json() == []


@pytest.mark.parametrize("body", [{}, {"jobs": []}, {"jobs": {}}, {"jobs": [5]}, {"jobs": [{}]}, [], 5, None])
def test_malformed_batches_are_422(local: Shop, body: Any) -> None:
    """A batch without jobs, or with what is no job, is 422."""
    headers = local.headers
    assert local.api.http.post("/jobs/batch", json=body, headers=headers).status_code == 422


def test_invalid_job_deep_in_a_long_batch_is_422_with_its_place(local: Shop) -> None:
    """A long batch is judged like a short one: 422 names the place of the job that is none, and nothing is stored."""
    jobs = [local.body() for _ in range(500)]
    jobs[321]["priority"] = 0
    answer = local.call("POST", "/jobs/batch", {"jobs": jobs})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "jobs", 321, "priority"]
    assert local.call("GET", "/jobs").json() == []


class Counted:
    """A record store that counts its queries."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._store, name)


def test_ten_thousand_jobs_in_one_request(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 jobs in one request are stored and answered; prompts and models cost one query each."""
    catalogue = shop.api.services.intake._catalogue
    prompts, models = Counted(catalogue._prompts), Counted(catalogue._models)
    monkeypatch.setattr(catalogue, "_prompts", prompts)
    monkeypatch.setattr(catalogue, "_models", models)
    catalogue.forget()
    answer = shop.call("POST", "/jobs/batch", {"jobs": [shop.body(id=str(number)) for number in range(10_000)]})
    jobs = answer.json()
    assert answer.status_code == 201
    assert [job["id"] for job in jobs] == [str(number) for number in range(10_000)]
    assert shop.api.storage.jobs.count(JobQuery(client_id=shop.client_id)) == 10_000
    assert (prompts.calls, models.calls) == (["get_many"], ["find"])


def test_more_jobs_than_anybody_needs_are_422(local: Shop) -> None:
    """A batch above the bound is refused before it takes the memory."""
    assert local.call("POST", "/jobs/batch", {"jobs": [0] * 50_001}).status_code == 422


def test_not_before_without_zone_is_utc_and_holds_the_job_back(shop: Shop) -> None:
    """notBefore is an ISO time, UTC where it has no zone; until then no worker gets the job."""
    later = (shop.api.clock.now() + timedelta(hours=1)).replace(tzinfo=None)
    job = shop.post(notBefore=later.isoformat())
    assert datetime.fromisoformat(job["notBefore"]) == later.replace(tzinfo=UTC)
    past = shop.post(notBefore="2020-01-01T00:00:00Z")
    claimed: list[Job] = shop.claim()
    assert [one.id for one in claimed] == [past["jobId"]]


HOSTILE = [
    {"requestData": {"a\0b": "\0", "$where": {"$gt": ""}, "a.b": 1, "": {}}},
    {"requestData": {"big": 2**80, "small": -(2**80), "precise": 1e308}},
    {"clientReference": {"$set": 1, "a\0b": 2, "": 3, "huge": 2**70, "list": [{"x": 1}]}},
    {"operation": "\0", "id": "\0$\ufffe"},
    {"requestData": {"emoji": "\U0001f600", "bidi": "\u202e", "line": "\u2028"}},
    {"clientReference": {"x" * 5000: "y" * 5000}},
]


@pytest.mark.parametrize("fields", HOSTILE)
def test_hostile_values_are_kept_as_they_came(shop: Shop, fields: dict[str, Any]) -> None:
    """NUL, `$`, empty and huge names and values are data: stored and shown again, numbers to a double's precision."""
    job = shop.get(shop.post(**fields)["jobId"])
    for name, value in fields.items():
        assert job[name] == value


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize("depth", [100, 240, 247, 248, 249, 250, 253, 300, 900, 3000])
def test_deep_nesting_is_kept_or_refused(shop: Shop, depth: int) -> None:
    """However deep requestData is, it is stored and shown again, or it is 422; never a 5xx."""
    headers = {**shop.headers, "content-type": "application/json"}
    text = '{"a":' * depth + "{}" + "}" * depth
    body = (
        '{"requestData":'
        + text
        + ","
        + shop.api.http.build_request("POST", "/", json=shop.body(requestData=None)).content.decode()[1:]
    )
    answer = shop.api.http.post("/jobs", content=body, headers=headers)
    assert answer.status_code == (201 if depth <= 240 else answer.status_code)
    assert answer.status_code in (201, 422)
    if answer.status_code == 201:
        assert shop.call("GET", "/jobs").json()[0]["requestData"] == nested(depth)


def test_numbers_beyond_a_double_are_422(local: Shop) -> None:
    """A number that no double can hold is a failed validation."""
    headers = {**local.headers, "content-type": "application/json"}
    assert local.api.http.post("/jobs", content='{"requestData": {"a": 1e400}}', headers=headers).status_code == 422
