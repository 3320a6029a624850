"""/v1/files and /v1/batches over HTTP, on every back-end."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from engine.jobs.queue import Page
from engine.records.files import CHUNK_BYTES, FileStatus
from engine.records.store import Where
from tests.http.test_openai_errors import bearer, error_of
from tests.support.api import Api, Headers
from tests.support.batching import CHAT, jsonl, line
from tests.support.waiting import eventually
from utilities.clock import SystemClock

MEGABYTE = 1024 * 1024
BATCH = {"endpoint": CHAT, "completion_window": "24h"}


def upload(api: Api, headers: Headers, content: bytes = b"{}\n", **fields: str) -> httpx.Response:
    form = {"purpose": "batch", **fields}
    answer: httpx.Response = api.http.post(
        "/v1/files", data=form, files={"file": ("in.jsonl", content)}, headers=headers
    )
    return answer


def uploaded(api: Api, headers: Headers, content: bytes = b"{}\n", **fields: str) -> dict[str, Any]:
    answer = upload(api, headers, content, **fields)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def test_a_file_comes_back_as_it_was(api: Api) -> None:
    """Its facts in OpenAI's shape, and its bytes, whatever they are and however many."""
    headers = bearer(api)
    content = bytes(range(256)) * 5000
    shown = uploaded(api, headers, content)
    assert shown == {
        "id": shown["id"],
        "object": "file",
        "bytes": len(content),
        "filename": "in.jsonl",
        "purpose": "batch",
        "created_at": shown["created_at"],
        "expires_at": shown["created_at"] + 30 * 86400,
        "status": "processed",
    }
    assert api.http.get(f"/v1/files/{shown['id']}", headers=headers).json() == shown
    read = api.http.get(f"/v1/files/{shown['id']}/content", headers=headers)
    assert (read.content, read.headers["content-length"]) == (content, str(len(content)))


def test_files_are_listed_page_by_page(api: Api) -> None:
    """The newest first, by purpose, and from page to page by the last id; another client sees none of them."""
    headers, other = bearer(api), bearer(api)
    ids = [uploaded(api, headers, purpose=purpose)["id"] for purpose in ("batch", "batch", "evals")]
    listed = api.http.get("/v1/files?limit=2", headers=headers).json()
    assert ([file["id"] for file in listed["data"]], listed["has_more"]) == ([ids[2], ids[1]], True)
    rest = api.http.get(f"/v1/files?limit=2&after={listed['last_id']}", headers=headers).json()
    assert ([file["id"] for file in rest["data"]], rest["has_more"]) == ([ids[0]], False)
    oldest = api.http.get("/v1/files?purpose=batch&order=asc", headers=headers).json()
    assert [file["id"] for file in oldest["data"]] == ids[:2]
    assert api.http.get("/v1/files", headers=other).json()["data"] == []
    for path in (f"/v1/files/{ids[0]}", f"/v1/files/{ids[0]}/content"):
        assert error_of(api.http.get(path, headers=other), 404)["code"] == "not_found"


def over(api: Api, file_id: str) -> None:
    """The file's time is over, and nothing has removed it yet."""
    file = api.storage.files.get(file_id)
    assert file is not None
    assert api.storage.files.compare_and_set(replace(file, expires_at=SystemClock().now() - timedelta(seconds=1)))


def test_files_whose_time_is_over_are_not_there(api: Api) -> None:
    """They are passed over in lists, whose pages are full nevertheless, and cannot be read; a batch that has begun with
    one is still shown."""
    headers = bearer(api)
    batch = posted(api, headers, b"{}")
    ids = [uploaded(api, headers)["id"] for _ in range(4)]
    for file_id in (*ids[2:], batch["input_file_id"]):
        over(api, file_id)
    listed = api.http.get("/v1/files?limit=2", headers=headers).json()
    assert ([file["id"] for file in listed["data"]], listed["has_more"]) == (ids[1::-1], False)
    error_of(api.http.get(f"/v1/files/{ids[3]}/content", headers=headers), 404)
    assert api.http.get(f"/v1/batches/{batch['id']}", headers=headers).json()["status"] == "validating"


def test_a_deleted_file_is_gone(api: Api) -> None:
    """Its facts and its bytes; another client cannot delete it."""
    headers, other = bearer(api), bearer(api)
    file_id = uploaded(api, headers)["id"]
    error_of(api.http.delete(f"/v1/files/{file_id}", headers=other), 404)
    deleted = api.http.delete(f"/v1/files/{file_id}", headers=headers).json()
    assert deleted == {"id": file_id, "object": "file", "deleted": True}
    error_of(api.http.get(f"/v1/files/{file_id}", headers=headers), 404)
    assert api.storage.contents.get(file_id, 0) is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": "poetry"}, "purpose"),
        ({"purpose": "x" * 20_000}, "purpose"),
        ({"x" * 1000: "y"}, "body"),
        ({"expires_after[anchor]": "now", "expires_after[seconds]": "3600"}, "expires_after[anchor]"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "1"}, "expires_after[seconds]"),
        ({"expires_after[seconds]": "soon"}, "expires_after[seconds]"),
    ],
)
def test_a_form_that_is_wrong(local_api: Api, fields: dict[str, str], param: str) -> None:
    """What is wrong with a field is told by its name, and nothing of the content stays."""
    headers = bearer(local_api)
    assert error_of(upload(local_api, headers, **fields), 400)["param"] == param
    assert local_api.storage.files.count(Where()) == 0


def test_what_is_no_form(local_api: Api) -> None:
    """JSON, a form without a file or end, and one with two files are refused."""
    headers, kind = bearer(local_api), {"Content-Type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nx\r\n'
    post = local_api.http.post
    error_of(post("/v1/files", json={"file": "x"}, headers=headers), 400)
    assert error_of(post("/v1/files", data={"purpose": "batch"}, files={"other": b""}, headers=headers), 400)["param"]
    for content in (part, part + part + b"--b--\r\n", b"nonsense"):
        error_of(post("/v1/files", content=content, headers={**headers, **kind}), 400)
    assert local_api.storage.files.count(Where()) == 0


@pytest.mark.parametrize("part", [b"\r\nsomething", b'\r\nContent-Disposition: form-data; name="n"\r\n\r\nv\r\n'])
def test_a_form_without_end(local_api: Api, part: bytes) -> None:
    """Two megabytes of one field over and over, or of what comes after the form, are refused in plain words."""
    file = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nx\r\n--b'
    content = file + (part + b"--b") * (2 * MEGABYTE // len(part + b"--b"))
    headers = {**bearer(local_api), "Content-Type": "multipart/form-data; boundary=b"}
    error_of(local_api.http.post("/v1/files", content=content, headers=headers), 400)
    assert local_api.storage.files.count(Where()) == 0


def test_an_upload_that_says_its_size_is_refused_at_once(local_api: Api) -> None:
    """300 MB that are announced are not read."""
    headers = {**bearer(local_api), "Content-Type": "multipart/form-data; boundary=b"}
    announced = {**headers, "Content-Length": str(300 * MEGABYTE)}
    refused = local_api.http.post("/v1/files", content=b"", headers=announced)
    assert error_of(refused, 413)["code"] == "request_too_large"


def test_an_upload_is_repeated_by_its_key(api: Api) -> None:
    """The same key and content give the same file, another content is refused; one copy is kept."""
    headers = {**bearer(api), "Idempotency-Key": "once"}
    first, second = (upload(api, headers, b"a" * CHUNK_BYTES) for _ in range(2))
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
    kept = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    for again in (upload(api, headers, b"b"), upload(api, headers, b"a" * CHUNK_BYTES, **kept)):
        assert error_of(again, 422)["code"] == "idempotency_key_reused"
    files = api.storage.files.find(Where(), Page())
    assert [file.status for file in files] == [FileStatus.PROCESSED]


def ended(api: Api, headers: Headers, batch_id: str) -> dict[str, Any]:
    def shown() -> dict[str, Any] | None:
        batch: dict[str, Any] = api.http.get(f"/v1/batches/{batch_id}", headers=headers).json()
        return batch if batch["status"] in ("completed", "failed", "cancelled", "expired") else None

    return eventually(shown, within=30, what="the batch's end")


def posted(api: Api, headers: Headers, content: bytes, **fields: Any) -> dict[str, Any]:
    file_id = uploaded(api, headers, content)["id"]
    answer = api.http.post("/v1/batches", json={**BATCH, "input_file_id": file_id, **fields}, headers=headers)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


@pytest.fixture
def driven(api: Api) -> Api:
    """A replica that drives batches, with a model and no worker."""
    api.new_model()
    api.batches.start()
    return api


def deep(levels: int) -> bytes:
    return b'{"custom_id": "deep", "body": ' + b"[" * levels + b"]" * levels + b"}"


WRONG: dict[str, tuple[Any, str, str | None]] = {
    "no JSON": (b"{nonsense}", "invalid_json_line", None),
    "invalid UTF-8": (b'{"custom_id": "\xff"}', "invalid_json_line", None),
    "a list": (b"[]", "invalid_request", None),
    "twice": (line("one"), "duplicate_custom_id", "custom_id"),
    "without an id": ({**line("x"), "custom_id": ""}, "invalid_custom_id", "custom_id"),
    "another method": (line("x", method="GET"), "invalid_method", "method"),
    "another endpoint": (line("x", url="/v1/embeddings"), "mismatched_url", "url"),
    "no body": ({**line("x"), "body": None}, "missing_required_parameter", "body"),
    "no messages": (line("x", body={"model": "gpt-test"}), "missing_required_parameter", "body.messages"),
    "streamed": (line("x", body={**line("x")["body"], "stream": True}), "unsupported_parameter", "body.stream"),
    "nested deeply": (deep(400), "invalid_request", None),
    "nested more deeply": (deep(2000), "invalid_json_line", None),
    "an unknown model": (line("x", body={**line("x")["body"], "model": "none"}), "model_not_found", "body.model"),
}


def test_lines_that_are_wrong_are_named(driven: Api) -> None:
    """Each wrong line of an input is told with its number, code and field; then nothing at all is run."""
    headers = bearer(driven)
    wrong = [each if isinstance(each, bytes) else json.dumps(each).encode() for each, _, _ in WRONG.values()]
    content = jsonl([line("one")]) + b"\n" + b"\n".join(wrong)
    batch = ended(driven, headers, posted(driven, headers, content)["id"])
    assert (batch["status"], batch["request_counts"]["total"]) == ("failed", 0)
    told = [(error["line"], error["code"], error["param"]) for error in batch["errors"]["data"]]
    assert told == [(number, code, param) for number, (_, code, param) in enumerate(WRONG.values(), 3)]
    assert driven.http.get("/jobs", headers=headers).json() == []


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"\n\n", "empty_file"),
        (b"\n" * (10 * MEGABYTE), "too_many_lines"),
        (b"[" * (50 * MEGABYTE), "line_too_long"),
        (jsonl([{}] * 200), "missing_required_parameter"),
    ],
    ids=["nothing", "blank lines", "a line of 50 MB", "many"],
)
def test_an_input_that_is_wrong_as_a_whole(driven: Api, content: bytes, code: str) -> None:
    """Empty files, ten million blank lines, endless lines and hundreds of faults end as a batch that failed, with at
    most a hundred."""
    headers = bearer(driven)
    batch = ended(driven, headers, posted(driven, headers, content)["id"])
    assert (batch["status"], batch["errors"]["data"][0]["code"]) == ("failed", code)
    assert len(batch["errors"]["data"]) <= 100


def test_a_batch_without_a_worker_says_so(driven: Api) -> None:
    """From the first answer on it is told that no worker will ever take its requests; then it can be cancelled, which
    cancels them, and a batch that has ended cannot."""
    headers = bearer(driven)
    batch = posted(driven, headers, jsonl([line("one"), line("two")]), metadata={"mine": "yes"})
    assert (batch["status"], batch["metadata"]) == ("validating", {"mine": "yes"})
    assert batch["waits_for"]["reason"] == "no_worker"
    path = f"/v1/batches/{batch['id']}"
    eventually(lambda: driven.http.get(path, headers=headers).json()["status"] == "in_progress", within=20, what="jobs")
    assert driven.http.get(path, headers=headers).json()["waits_for"]["reason"] == "no_worker"
    error_of(driven.http.delete(f"/v1/files/{batch['input_file_id']}", headers=headers), 400)
    assert driven.http.post(f"{path}/cancel", headers=headers).json()["status"] == "cancelling"
    cancelled = ended(driven, headers, batch["id"])
    assert cancelled["status"] == "cancelled"
    assert cancelled["request_counts"] == {"total": 2, "completed": 0, "failed": 2}
    content = driven.http.get(f"/v1/files/{cancelled['error_file_id']}/content", headers=headers).text
    assert [json.loads(each)["error"]["code"] for each in content.splitlines()] == ["batch_cancelled"] * 2
    error_of(driven.http.post(f"{path}/cancel", headers=headers), 400)


def test_batches_are_their_owners(api: Api) -> None:
    """They are listed the newest first, page by page; another client sees none, and cannot cancel any."""
    headers, other = bearer(api), bearer(api)
    ids = [posted(api, headers, b"{}\n")["id"] for _ in range(3)]
    first = api.http.get("/v1/batches?limit=2", headers=headers).json()
    assert ([batch["id"] for batch in first["data"]], first["has_more"]) == (ids[:0:-1], True)
    rest = api.http.get(f"/v1/batches?after={first['last_id']}", headers=headers).json()
    assert [batch["id"] for batch in rest["data"]] == ids[:1]
    assert api.http.get("/v1/batches", headers=other).json()["data"] == []
    error_of(api.http.post(f"/v1/batches/{ids[0]}/cancel", headers=other), 404)
    error_of(api.http.get(f"/v1/batches/{ids[0]}", headers=other), 404)


def test_a_batch_is_repeated_by_its_key(api: Api) -> None:
    """The same key and body give the same batch, another body is refused."""
    headers = bearer(api)
    body = {**BATCH, "input_file_id": uploaded(api, headers)["id"]}
    keyed = {**headers, "Idempotency-Key": "once"}
    first, second = (api.http.post("/v1/batches", json=body, headers=keyed) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    error_of(api.http.post("/v1/batches", json={**body, "metadata": {"a": "b"}}, headers=keyed), 422)
    assert len(api.http.get("/v1/batches", headers=headers).json()["data"]) == 1


def test_a_cancel_is_repeated_by_its_key(driven: Api) -> None:
    """The same key gives the batch also when it has ended since; for another batch it is refused. What was refused
    stays so under its key."""
    headers = bearer(driven)
    one, other = (posted(driven, headers, jsonl([line("one")]))["id"] for _ in range(2))

    def cancel(batch_id: str, key: str) -> httpx.Response:
        answer: httpx.Response = driven.http.post(
            f"/v1/batches/{batch_id}/cancel", headers={**headers, "Idempotency-Key": key}
        )
        return answer

    first = cancel(one, "once")
    assert (first.json()["status"], "idempotency-replayed" in first.headers) == ("cancelling", False)
    assert ended(driven, headers, one)["status"] == "cancelled"
    again = cancel(one, "once")
    assert (again.json()["status"], again.headers["idempotency-replayed"]) == ("cancelled", "true")
    error_of(cancel(other, "once"), 422)
    for _ in range(2):
        error_of(cancel(one, "too late"), 400)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"endpoint": "/v1/responses"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"metadata": {"k": "x" * 513}}, "metadata"),
    ],
)
def test_a_batch_that_is_wrong(local_api: Api, fields: dict[str, Any], param: str) -> None:
    """What is wrong with a request for a batch is told by its field."""
    headers = bearer(local_api)
    body = {**BATCH, "input_file_id": uploaded(local_api, headers)["id"], **fields}
    assert error_of(local_api.http.post("/v1/batches", json=body, headers=headers), 400)["param"] == param
