"""Input made to break things: each is refused by a 4xx that says what is wrong, or kept exactly on every back-end."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.api import ADMIN_KEY, Api, Headers, model_body, running_api
from tests.support.backends import Database
from tests.support.jobs_http import Shop, open_shop

JSON = {"content-type": "application/json"}
WORKER = {"pollInterval": 1, "maxItemsPerBatch": 1}
PROMPT = {"name": "n", "type": "t", "status": "DRAFT", "prompt": "p"}
MEGABYTE = 1024 * 1024


@pytest.fixture
def shop(api: Api) -> Shop:
    return open_shop(api)


@pytest.fixture
def local(local_api: Api) -> Shop:
    return open_shop(local_api)


@pytest.fixture
def wide(database: Database) -> Iterator[Shop]:
    """A shop whose replica takes bodies as large as the service's default."""
    with running_api(database.open(), most_body_bytes=64 * MEGABYTE) as running:
        yield open_shop(running)


def send(shop: Shop, path: str, content: bytes, **headers: str) -> httpx.Response:
    """A POST of exactly these bytes."""
    answer: httpx.Response = shop.api.http.post(path, content=content, headers={**shop.headers, **JSON, **headers})
    return answer


def with_member(shop: Shop, member: str) -> bytes:
    """A body for POST /jobs whose last member is as given."""
    return json.dumps(shop.body()).encode()[:-1] + b", " + member.encode() + b"}"


def names(answer: httpx.Response, field: str) -> bool:
    """Whether a refusal tells which field it is about, and is short."""
    return answer.status_code in (400, 422) and field in json.dumps(answer.json()) and len(answer.content) < 10_000


@pytest.mark.parametrize(
    "member",
    [
        '"temperature": NaN',
        '"temperature": Infinity',
        '"temperature": -Infinity',
        '"priority": 1e400',
        '"requestData": {"a": "\\ud800"}',
        '"clientReference": {"\\udfff": 1}',
        '"requestData": ' + "[" * 100_000 + "]" * 100_000,
        '"operation": "a\0b"',
    ],
)
def test_what_is_no_json_is_422(local: Shop, member: str) -> None:
    """Numbers that JSON has not, lone surrogates, raw control characters and a hundred thousand brackets are 422."""
    answer = send(local, "/jobs", with_member(local, member))
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["type"] == "json_invalid"
    assert local.call("GET", "/jobs").json() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("priority", "1" + "0" * 30),
        ("priority", "-1"),
        ("maxAttempts", str(2**64)),
        ("temperature", "1e308"),
        ("temperature", '"nan"'),
        ("operation", '""'),
        ("model", '""'),
        ("prompts", "[]"),
        ("prompts", '[""]'),
        ("requestData", "[]"),
        ("clientReference", '"x"'),
        ("notBefore", '"10000-01-01T00:00:00Z"'),
        ("notBefore", '"9999-12-31T23:59:59-14:00"'),
        ("notBefore", str(2**70)),
        ("responseFormat", '{"type": "json_schema", "schema": {"$ref": "file:///etc/passwd"}}'),
        ("responseFormat", '{"type": "json_schema", "schema": {"pattern": "("}}'),
    ],
)
def test_a_refusal_names_the_field(local: Shop, field: str, value: str) -> None:
    """Values beyond every limit are 400 or 422, and the answer names the field."""
    shown = "prompt" if field == "prompts" else field
    assert names(send(local, "/jobs", with_member(local, f'"{field}": {value}')), shown)
    assert local.call("GET", "/jobs").json() == []


def test_the_last_of_duplicate_keys_counts(shop: Shop) -> None:
    """Of a key that comes twice the last one counts, as with every other reader of JSON."""
    made = send(shop, "/jobs", with_member(shop, '"priority": 7, "requestData": {"a": 1, "a": 2}'))
    assert made.status_code == 201
    assert (made.json()["priority"], made.json()["requestData"]) == (7, {"a": 2})


@pytest.mark.parametrize("kind", ["application/xml", "text/plain", "multipart/form-data; boundary=x", "\xff"])
def test_a_wrong_content_type_is_422(local: Shop, kind: str) -> None:
    """JSON that says to be something else is a failed validation."""
    headers = {**local.headers, "content-type": kind.encode("latin-1")}
    answer = local.api.http.post("/jobs", content=json.dumps(local.body()), headers=headers)
    assert answer.status_code == 422


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_another_encoding_is_422(local: Shop, encoding: str) -> None:
    """JSON is UTF-8 without a mark."""
    assert send(local, "/jobs", json.dumps(local.body()).encode(encoding)).status_code == 422


@pytest.mark.parametrize("length", ["9" * 30, "9" * 5000])
def test_a_content_length_beyond_all_numbers_is_413(local: Shop, length: str) -> None:
    """However many digits an announced length has, it is above the limit."""
    assert send(local, "/jobs", b"{}", **{"content-length": length}).status_code == 413


@pytest.mark.parametrize("junk", ["%00", "%ff", "%ED%A0%80", "%", "%2e%2e", "%0A", "a" * 60_000, "$where", "%F0%9F"])
def test_junk_in_paths_is_not_found(shop: Shop, junk: str) -> None:
    """Percent-encoded junk and very long ids are unknown ids, answered briefly."""
    worker = {"config": WORKER}
    answers = {
        404: [
            shop.call("GET", f"/jobs/{junk}"),
            shop.call("GET", f"/jobs/{junk}/explain"),
            shop.call("DELETE", f"/jobs/{junk}"),
            shop.call("GET", f"/workers/{junk}"),
            shop.call("POST", f"/workers/{junk}/start"),
            shop.call("GET", f"/prompts/{junk}"),
            shop.call("DELETE", f"/prompt-flows/{junk}"),
            shop.as_admin("GET", f"/clients/{junk}"),
            shop.as_admin("PATCH", f"/models/{junk}", {}),
        ],
        400: [
            shop.call("PATCH", f"/jobs/{junk}", {"status": "CANCELED"}),
            shop.call("PATCH", f"/jobs/{junk}/full", {}),
            shop.call("PATCH", f"/prompts/{junk}", {}),
            shop.call("PATCH", f"/workers/{junk}", worker),
        ],
    }
    assert {status: {answer.status_code for answer in found} for status, found in answers.items()} == {
        404: {404},
        400: {400},
    }
    assert all(len(answer.content) < 1000 for found in answers.values() for answer in found)


def test_thousands_of_parameters(shop: Shop) -> None:
    """Unknown ones are ignored however many there are; more than 100 clientReference filters are 400."""
    shop.post(clientReference={f"a{number}": 1 for number in range(100)})
    unknown = "&".join(f"a{number}=1" for number in range(5000))
    assert len(shop.call("GET", f"/jobs?{unknown}").json()) == 1
    for count, status in ((100, 200), (101, 400), (2000, 400)):
        filters = "&".join(f"clientReference.a{number}=1" for number in range(count))
        for path in ("/jobs", "/jobs/summary", "/workers/summary"):
            answer = shop.call("GET", f"{path}?{filters}")
            assert answer.status_code == status
            assert status == 200 or names(answer, "clientReference")
        assert status != 200 or len(shop.call("GET", f"/jobs?{filters}").json()) == 1


@pytest.mark.parametrize("query", ["skip=-1", "limit=-1", f"skip={2**63}", "limit=1e400", "limit=%D9%A1", "order=%00"])
def test_paging_that_cannot_be_is_422(local: Shop, query: str) -> None:
    """Negative, huge and odd numbers for paging are 422 on every list, and named."""
    for path in ("/jobs", "/workers", "/prompts", "/prompt-flows", "/models"):
        assert names(local.call("GET", f"{path}?{query}"), query.partition("=")[0])


@pytest.mark.parametrize("member", ["type", "version"])
def test_a_nul_in_what_identifies_a_prompt_is_422(shop: Shop, member: str) -> None:
    """A prompt's type and version hold no NUL; asking for one finds nothing."""
    assert names(shop.call("POST", "/prompts", {**PROMPT, member: "a\0b"}), member)
    assert shop.call("POST", "/prompts", {**PROMPT, member: "a"}).status_code == 201
    assert shop.call("GET", f"/prompts?{member}=a%00b").json() == []


def test_a_nul_in_a_workers_group_is_422(shop: Shop) -> None:
    """A group holds no NUL, and one that is asked for has no members."""
    config = {"workerId": "w", "config": WORKER, "group": "g\0h"}
    assert names(shop.call("POST", "/workers", config), "group")
    assert shop.call("POST", "/workers", {**config, "group": "g"}).status_code == 201
    answer = shop.call("PATCH", "/workers/batch", {"action": "start", "group": "g\0h"})
    assert (answer.status_code, answer.json()["total_requested"]) == (200, 0)


def test_odd_texts_are_kept(shop: Shop) -> None:
    """NUL, `$`, dots, line separators and what no font shows come back as they went in, and are found."""
    odd = "a\0$b.c\u2028\ufffe\U0001f600\x7f"
    prompt = shop.call("POST", "/prompts", {**PROMPT, "name": odd, "prompt": odd}).json()
    assert (prompt["name"], prompt["prompt"]) == (odd, odd)
    again = shop.call("POST", "/prompts", {**PROMPT, "name": odd}).json()
    assert (prompt["version"], again["version"]) == (1, 2)
    found = shop.api.http.get("/prompts", params={"name": odd}, headers=shop.headers).json()
    assert [one["promptId"] for one in found] == [prompt["promptId"], again["promptId"]]
    flow = shop.call("POST", "/prompt-flows", {"name": odd, "promptIds": [odd, ""]}).json()
    assert shop.call("GET", f"/prompt-flows/{flow['flowId']}").json()["promptIds"] == [odd, ""]
    config = {**WORKER, "modelFilter": odd, "clientReferenceFilters": {"a.b": odd, "": odd}}
    worker = shop.call("POST", "/workers", {"workerId": odd, "config": config}).json()
    kept = shop.call("GET", f"/workers/{worker['workerId']}").json()
    assert (kept["name"], kept["config"] | config) == (odd, kept["config"])
    job = shop.post(operation=odd, id=odd, requestData={odd: odd}, clientReference={"x": odd})
    for name, value in (("operation", odd), ("jobId", odd), ("clientReference.x", odd)):
        listed = shop.api.http.get("/jobs", params={name: value}, headers=shop.headers).json()
        assert [one["jobId"] for one in listed] == [job["jobId"]], name


@pytest.mark.parametrize("price", [1e308, 5e-324, 0.1, 0])
def test_extreme_prices_are_kept(shop: Shop, price: float) -> None:
    """Any price that is a number comes back as it was."""
    cost = {"tokens": 2**53 - 1, "currency": "\0", "input": price, "output": price}
    made = shop.as_admin("POST", "/models", model_body(name="odd", cost=cost)).json()
    assert shop.as_admin("GET", f"/models/{made['model_id']}").json()["cost"] == cost


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/prompts", {**PROMPT, "prompt": "x" * 2_000_001}, "prompt"),
        ("/prompts", {**PROMPT, "name": "x" * 10_001}, "name"),
        ("/prompts", {**PROMPT, "type": "x" * 10_001}, "type"),
        ("/prompts", {**PROMPT, "version": "x" * 10_001}, "version"),
        ("/prompt-flows", {"name": "x" * 10_001, "promptIds": []}, "name"),
        ("/prompt-flows", {"name": "f", "promptIds": ["0"] * 10_001}, "promptIds"),
        ("/prompt-flows", {"name": "f", "promptIds": ["0" * 256]}, "promptIds"),
        ("/models", model_body(endpoint="x" * 10_001), "endpoint"),
        ("/workers", {"workerId": "w", "config": {**WORKER, "clientReferenceFilters": {"k" * MEGABYTE: ""}}}, "config"),
    ],
)
def test_huge_texts_are_422(local: Shop, path: str, body: dict[str, Any], field: str) -> None:
    """What would outgrow a document of a database is 422, and the answer is short although the text is not."""
    headers = {**local.headers, **local.api.admin}
    assert names(local.api.http.post(path, json=body, headers=headers), field)


def test_the_longest_prompt_is_kept(wide: Shop) -> None:
    """A prompt of two million characters, of four bytes each, is stored and shown."""
    longest = "\U0001f600" * 2_000_000
    made = wide.call("POST", "/prompts", {**PROMPT, "prompt": longest})
    assert made.status_code == 201
    assert wide.call("GET", f"/prompts/{made.json()['promptId']}").json()["prompt"] == longest


def test_unknown_ids_are_not_echoed_at_length(local: Shop) -> None:
    """A refusal shows the start of what it did not find."""
    answer = local.call("DELETE", "/jobs/batch", {"jobIds": ["x" * MEGABYTE]})
    assert names(answer, "Job not found: xxx")
    assert names(local.call("POST", "/jobs", local.body(model="x" * 9000)), "model not found: xxx")


@pytest.mark.parametrize(
    "reference", [{f"a{number}": number for number in range(1001)}, {"a": "x" * (MEGABYTE + 1)}], ids=["many", "long"]
)
def test_references_have_a_bound(local: Shop, reference: dict[str, Any]) -> None:
    """clientReference has at most 1000 fields and a mebibyte, at creation and in a change: else 422."""
    job_id = local.post()["jobId"]
    assert names(local.call("POST", "/jobs", local.body(clientReference=reference)), "clientReference")
    assert names(local.call("PATCH", f"/jobs/{job_id}/full", {"clientReference": reference}), "clientReference")


def test_a_job_that_would_grow_too_large_is_refused_whole(wide: Shop) -> None:
    """Data that together is too much is 400, and of a batch with such a job nothing is written."""
    half = {"a": "x" * 7 * MEGABYTE}
    small, large = wide.post(), wide.post(requestData=half)
    edits = [
        {"jobId": small["jobId"], "priority": 9},
        {"jobId": large["jobId"], "evalResult": half},
    ]
    answer = wide.call("PATCH", "/jobs/batch", {"jobs": edits})
    assert names(answer, "evalResult")
    assert wide.get(small["jobId"]) == small
    assert wide.get(large["jobId"])["evalResult"] is None
    assert wide.call("PATCH", f"/jobs/{large['jobId']}/full", {"evalResult": {"a": "x" * 6 * MEGABYTE}}).is_success


def raw_headers(shop: Shop, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json"), (b"admin_api_key", ADMIN_KEY.encode()), *more]


@pytest.mark.parametrize("value", [b"~", b"a\tb", b"$ne", b"..", b"x" * 255])
def test_an_odd_owner_is_kept(shop: Shop, value: bytes) -> None:
    """An admin may name any owner of up to 255 characters; it is kept as it came."""
    headers = raw_headers(shop, (b"client_id", value))
    made = shop.api.http.post("/jobs", json=shop.body(), headers=headers)
    assert made.status_code == 201
    owner = value.decode("latin-1")
    assert made.json()["clientId"] == owner
    assert shop.as_admin("GET", f"/jobs/{made.json()['jobId']}").json()["clientId"] == owner


def test_an_endless_owner_is_refused(local: Shop) -> None:
    """An owner of more than 255 characters is 400 and names the header."""
    headers = raw_headers(local, (b"client_id", b"x" * 60_000))
    for path, body in (("/jobs", local.body()), ("/workers", {"workerId": "w", "config": WORKER})):
        assert names(local.api.http.post(path, json=body, headers=headers), "client_id")


@pytest.mark.parametrize(
    "value", [b"\xff", b"Basic \xff\xff", b"Bearer \xff\xfe", b"Bearer " + b"x" * 60_000, b"Basic ////", b" ", b"\t"]
)
def test_odd_credentials_are_401(local: Shop, value: bytes) -> None:
    """Credentials of bytes that are no text, or far too long, are wrong credentials."""
    for name in (b"authorization", b"client_api_key", b"admin_api_key"):
        headers = [(name, value), (b"client_id", b"\xff")]
        assert local.api.http.get("/jobs", headers=headers).status_code == 401
        assert local.api.http.get("/clients", headers=headers).status_code == 401
        assert local.api.http.get("/docs", headers=headers).status_code == 401


def test_a_batch_with_one_bad_job_leaves_nothing(shop: Shop, client: Headers) -> None:
    """Whatever is wrong with the last job of a batch, none of them is stored."""
    bad: list[dict[str, Any]] = [
        {"priority": 2**70},
        {"operation": ""},
        {"prompts": ["\0"]},
        {"model": "$ne"},
        {"clientReference": {f"a{number}": 1 for number in range(1001)}},
    ]
    for fields in bad:
        answer = shop.call("POST", "/jobs/batch", {"jobs": [shop.body(), shop.body(), shop.body(**fields)]})
        assert answer.status_code in (400, 422)
    assert shop.call("GET", "/jobs/summary").json()["total"] == 0
