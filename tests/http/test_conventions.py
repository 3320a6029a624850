"""What holds for every path: contract, section 1."""

import json
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.support.api import Api, Headers, running_api
from tests.support.backends import SQLITE, Servers, fresh_database
from utilities.ids import is_object_id

JSON = {"content-type": "application/json"}
MALFORMED = {
    "no JSON": b"{name",
    "invalid UTF-8": b'{"name": "\xff"}',
    "too deep": b"[" * 100_000 + b"]" * 100_000,
    "NaN": b'{"name": NaN}',
    "infinite": b'{"name": 1e999}',
    "lone surrogate": b'{"name": "\\ud800"}',
    "empty": b"",
    "a list": b"[]",
    "a text": b'"name"',
    "null": b"null",
    "a huge integer": b'{"name": ' + b"9" * 5000 + b"}",
    "a NUL": b"\x00",
}


def test_an_unknown_path_is_404_and_a_wrong_method_405(local_api: Api) -> None:
    """Unknown path 404, wrong method 405, each with `{"detail": "<text>"}`."""
    for method, path, status in [("GET", "/nowhere", 404), ("PUT", "/clients", 405), ("POST", "/health", 405)]:
        answer = local_api.http.request(method, path)
        assert (answer.status_code, list(answer.json())) == (status, ["detail"])
        assert isinstance(answer.json()["detail"], str)


def test_a_failed_validation_is_422_with_a_list(local_api: Api) -> None:
    """Validation is 422 with `detail` = list of {type, loc, msg, input}."""
    answer = local_api.http.post("/clients", json={"name": ""}, headers=local_api.admin)
    assert answer.status_code == 422
    (problem,) = answer.json()["detail"]
    assert set(problem) == {"type", "loc", "msg", "input"}
    assert (problem["type"], problem["loc"], problem["input"]) == ("string_too_short", ["body", "name"], "")


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_body_that_is_no_good_json_is_422(local_api: Api, body: bytes) -> None:
    """Malformed, misencoded, too deep and non-standard JSON is 422 with a list, never a 5xx."""
    answer = local_api.http.post("/clients", content=body, headers={**local_api.admin, **JSON})
    assert answer.status_code == 422
    assert {"type", "loc", "msg"} <= set(answer.json()["detail"][0])


def test_a_body_without_a_content_type_is_read_as_json(local_api: Api) -> None:
    """A caller that forgets the content type is understood all the same."""
    answer = local_api.http.post("/clients", content=b'{"name": "n"}', headers=local_api.admin)
    assert answer.status_code == 201


def test_a_body_of_another_type_is_422(local_api: Api) -> None:
    """A body that says it is not JSON is refused as a failed validation, its input shown as text."""
    headers = {**local_api.admin, "content-type": "text/plain"}
    answer = local_api.http.post("/clients", content=b"\xff\x00name", headers=headers)
    assert answer.status_code == 422


def test_long_inputs_and_many_problems_are_cut(local_api: Api) -> None:
    """A 422 shows at most 2000 bytes of an input: it never answers megabytes with megabytes."""
    answer = local_api.http.post("/clients", json={"name": "x" * 1_000_000}, headers=local_api.admin)
    assert answer.status_code == 422
    assert len(answer.content) < 5000


def test_unknown_fields_and_parameters_are_ignored(api: Api, client: Headers) -> None:
    """Unknown body fields and query parameters are ignored."""
    answer = api.http.post("/clients", json={"name": "n", "color": "red"}, headers=api.admin)
    assert answer.status_code == 201
    assert "color" not in answer.json()
    assert api.http.get("/prompts?color=red", headers=client).status_code == 200


def test_a_correlation_id_is_echoed(local_api: Api) -> None:
    """X-Correlation-ID is echoed when sent."""
    answer = local_api.http.get("/health", headers={"X-Correlation-ID": "trace-42:a.b/c"})
    assert answer.headers["X-Correlation-ID"] == "trace-42:a.b/c"


@pytest.mark.parametrize("sent", ["", "x" * 129, "two words", "<script>", "a\x7fb"])
def test_a_correlation_id_that_is_too_long_or_odd_is_replaced(local_api: Api, sent: str) -> None:
    """A correlation id beyond 128 characters or with odd ones gives way to a fresh UUID."""
    answer = local_api.http.get("/health", headers={"X-Correlation-ID": sent})
    assert uuid.UUID(answer.headers["X-Correlation-ID"]).version == 4


def test_every_response_carries_a_correlation_id(local_api: Api) -> None:
    """X-Correlation-ID is on every response: 200, 401, 404, 405, 413, 422."""
    http, admin = local_api.http, local_api.admin
    answers = [
        http.get("/health"),
        http.get("/clients"),
        http.get("/nowhere"),
        http.put("/clients"),
        http.post("/clients", content=b"x" * 9_000_000, headers=admin),
        http.post("/clients", content=b"{", headers=admin),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 404, 405, 413, 422]
    identifiers = [answer.headers["X-Correlation-ID"] for answer in answers]
    assert len(set(identifiers)) == len(identifiers)


@pytest.fixture
def small_api(tmp_path: Path, storage_servers: Servers) -> Iterator[Api]:
    """A replica that takes bodies of a thousand bytes."""
    fresh = fresh_database(SQLITE, storage_servers, tmp_path)
    with fresh as database, running_api(database.open(), most_body_bytes=1000) as running:
        yield running


def test_a_body_above_the_limit_is_413(small_api: Api) -> None:
    """A body whose Content-Length is above the limit is 413, one at the limit is read."""
    name = json.dumps({"name": "n" * 900}).encode()
    headers = {**small_api.admin, **JSON}
    assert small_api.http.post("/clients", content=name.ljust(1000), headers=headers).status_code == 422
    answer = small_api.http.post("/clients", content=name.ljust(1001), headers=headers)
    assert (answer.status_code, list(answer.json())) == (413, ["detail"])


def test_a_body_that_streams_beyond_the_limit_is_413(small_api: Api) -> None:
    """A body without a length is cut off with 413 as soon as it is longer than the limit."""

    def chunks() -> Iterator[bytes]:
        for _ in range(11):
            yield b" " * 100

    answer = small_api.http.post("/clients", content=chunks(), headers={**small_api.admin, **JSON})
    assert answer.status_code == 413
    assert "X-Correlation-ID" in answer.headers


def test_ids_have_their_form(api: Api, client: Headers) -> None:
    """Ids are 24 hex characters on every back-end, client ids are UUID4."""
    assert uuid.UUID(client["client_id"]).version == 4
    assert is_object_id(api.new_prompt(client)["promptId"])
    assert is_object_id(api.new_model()["model_id"])


@pytest.mark.parametrize("odd", ["1", "z" * 24, "0" * 25, "%00", "%ff", "%F0%9F%98%80", "$ne", "{}", " "])
def test_a_malformed_id_is_not_found(api: Api, odd: str) -> None:
    """A malformed id answers as an unknown one does."""
    for collection in ("clients", "models", "prompts", "prompt-flows"):
        assert api.http.get(f"/{collection}/{odd}", headers=api.admin).status_code == 404


def test_metadata_is_on_every_resource(api: Api, client: Headers) -> None:
    """`_metadata` has all its fields; updatedAt is null until the first change; times are ISO 8601 with a zone."""
    made = api.new_prompt(client)
    metadata = made["_metadata"]
    assert metadata == {
        "isDeleted": False,
        "createdAt": metadata["createdAt"],
        "updatedAt": None,
        "deletedAt": None,
        "archivedAt": None,
        "createdBy": client["client_id"],
        "updatedBy": None,
        "deletedBy": None,
    }
    assert datetime.fromisoformat(metadata["createdAt"]).utcoffset() == timedelta(0)
    path = f"/prompts/{made['promptId']}"
    changed = api.http.patch(path, json={"prompt": "another"}, headers=api.admin).json()["_metadata"]
    assert changed["updatedBy"] == "admin"
    assert datetime.fromisoformat(changed["updatedAt"]) >= datetime.fromisoformat(metadata["createdAt"])


def test_the_console_finds_its_names(api: Api, client: Headers) -> None:
    """Every object also carries `_id` and `createdAt`; client answers carry `apiKey` beside `api_key`."""
    prompt, model = api.new_prompt(client), api.new_model()
    assert (prompt["_id"], model["_id"]) == (prompt["promptId"], model["model_id"])
    assert prompt["createdAt"] == prompt["_metadata"]["createdAt"]
    made = api.http.post("/clients", json={"name": "n"}, headers=api.admin).json()
    assert (made["_id"], made["apiKey"]) == (made["clientId"], made["api_key"])


def test_a_deletion_answers_204_without_json(api: Api, client: Headers) -> None:
    """A 204 has no body and no JSON content type."""
    made = api.new_prompt(client)
    answer = api.http.delete(f"/prompts/{made['promptId']}", headers=client)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["content-type"].startswith("text/plain")


def test_lists_are_arrays_in_insertion_order(api: Api, client: Headers) -> None:
    """Lists are bare JSON arrays in insertion order; order=desc reverses them."""
    made = [api.new_prompt(client)["promptId"] for _ in range(3)]
    assert [one["promptId"] for one in api.http.get("/prompts", headers=client).json()] == made
    newest_first = api.http.get("/prompts?order=desc", headers=client).json()
    assert [one["promptId"] for one in newest_first] == made[::-1]


def test_lists_are_cut_and_counted(api: Api, client: Headers) -> None:
    """Every list takes limit and skip and answers X-Total-Count."""
    made = [api.new_prompt(client)["promptId"] for _ in range(4)]
    answer = api.http.get("/prompts?limit=2&skip=1", headers=client)
    assert [one["promptId"] for one in answer.json()] == made[1:3]
    assert answer.headers["X-Total-Count"] == "4"
    beyond = api.http.get("/prompts?skip=9", headers=client)
    assert (beyond.json(), beyond.headers["X-Total-Count"]) == ([], "4")


@pytest.mark.parametrize("path", ["/clients", "/models", "/prompts", "/prompt-flows"])
@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=10001", "limit=x", "skip=-1", "skip=99999999999999999999", "order=up"]
)
def test_paging_has_its_bounds(local_api: Api, path: str, query: str) -> None:
    """limit is 1 to 10000, skip not negative, order asc or desc: all else is 422."""
    assert local_api.http.get(f"{path}?{query}", headers=local_api.admin).status_code == 422


@pytest.mark.parametrize("path", ["/clients", "/models", "/prompts", "/prompt-flows"])
def test_every_list_is_counted(local_api: Api, path: str) -> None:
    """An empty list answers [] and a total of 0, and takes the highest limit."""
    answer = local_api.http.get(f"{path}?limit=10000", headers=local_api.admin)
    assert (answer.status_code, answer.json(), answer.headers["X-Total-Count"]) == (200, [], "0")
