"""Files and batches by OpenAI's own client, against a real server process with a worker of its own for batches."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.benchmarks.stage import resident_mb
from tests.support.api import ADMIN
from tests.support.backends import Servers, fresh_database
from tests.support.batching import CHAT
from tests.support.customer import MODEL, Customer
from tests.support.fake_provider import FakeProvider, Rule, fault
from tests.support.service import Replica, fleet, one_of_each
from tests.support.waiting import eventually

MEGABYTE = 1024 * 1024
COUNT = 600
ENDED = ("completed", "failed", "expired", "cancelled")


class Served:
    """A customer whose batches a shared worker takes, which comes with the setting."""

    def __init__(self, customer: Customer, replica: Replica) -> None:
        self.customer = customer
        self.replica = replica
        self.fake = customer.fake
        self.url = f"http://127.0.0.1:{replica.port}/v1"
        self.key = customer.headers["client_api_key"]
        http = openai.DefaultHttpxClient(trust_env=False)
        self.sdk = openai.OpenAI(base_url=self.url, api_key=self.key, http_client=http, max_retries=0)

    def batch(self, lines: list[dict[str, Any]], **fields: Any) -> Any:
        content = "\n".join(map(json.dumps, lines)).encode()
        file = self.sdk.files.create(file=("in.jsonl", content), purpose="batch")
        endpoint: Any = lines[0]["url"]
        return self.sdk.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **fields)

    def ended(self, batch_id: str, within: float = 60.0) -> Any:
        def found() -> Any:
            batch = self.sdk.batches.retrieve(batch_id)
            return batch if batch.status in ENDED else None

        return eventually(found, within=within, what="the batch's end")

    def lines(self, file_id: str | None) -> list[dict[str, Any]]:
        assert file_id is not None
        return [json.loads(each) for each in self.sdk.files.content(file_id).text.splitlines()]


@pytest.fixture(params=one_of_each())
def served(request: pytest.FixtureRequest, storage_servers: Servers, tmp_path: Path) -> Iterator[Served]:
    with (
        fresh_database(request.param, storage_servers, tmp_path) as database,
        FakeProvider() as fake,
        fleet(
            database.url, database.name, tmp_path, batch_worker="true", lease_seconds=2, worker_lease_seconds=2
        ) as launched,
    ):
        [replica] = launched.launch(1)
        served = Served(Customer(replica, database.open(), fake), replica)
        yield served
        served.sdk.close()


def request(number: int, **body: Any) -> dict[str, Any]:
    asked = {"model": MODEL, "messages": [{"role": "user", "content": f"question {number}"}], **body}
    return {"custom_id": f"request-{number}", "method": "POST", "url": CHAT, "body": asked}


def test_a_batch_from_upload_to_results(served: Served) -> None:
    """Of 600 requests each is answered once, in order, the one that the provider refuses stands in the error file
    with the provider's status, and counts and usage are exact; the process was killed in between."""
    served.fake.add(Rule(fault("status", code=400), containing="question 77."))
    lines = [request(number) for number in range(COUNT)]
    lines[77]["body"]["messages"][0]["content"] = "question 77."
    batch = served.batch(lines, metadata={"of": "tests"})
    assert (batch.object, batch.metadata, batch.request_counts.total) == ("batch", {"of": "tests"}, 0)
    eventually(lambda: served.fake.seen.total > 200, within=30, what="some calls")
    served.replica.kill()
    served.replica.start()
    ended = served.ended(batch.id)
    assert ended.status == "completed", ended.errors
    counts = ended.request_counts
    assert (counts.total, counts.completed, counts.failed) == (COUNT, COUNT - 1, 1)
    output = served.lines(ended.output_file_id)
    assert [each["custom_id"] for each in output] == [f"request-{n}" for n in range(COUNT) if n != 77]
    assert {each["response"]["status_code"] for each in output} == {200}
    assert output[0]["response"]["body"]["choices"][0]["message"]["role"] == "assistant"
    [failed] = served.lines(ended.error_file_id)
    assert (failed["custom_id"], failed["response"]["status_code"]) == ("request-77", 400)
    assert ended.usage.total_tokens == ended.usage.input_tokens + ended.usage.output_tokens > 0
    assert [each.id for each in served.sdk.batches.list()] == [batch.id]
    assert {each.purpose for each in served.sdk.files.list()} == {"batch", "batch_output"}


def test_embeddings_and_cancelling(served: Served) -> None:
    """Embeddings are a batch's requests too; one whose provider does not answer is cancelled, and its calls dropped."""
    embed = {"custom_id": "e", "method": "POST", "url": "/v1/embeddings", "body": {"model": MODEL, "input": "x"}}
    [embedded] = served.lines(served.ended(served.batch([embed]).id).output_file_id)
    assert embedded["response"]["body"]["data"][0]["embedding"]
    served.fake.hold()
    batch = served.batch([request(number) for number in range(5)])
    eventually(lambda: served.fake.seen.in_flight >= 5, within=20, what="calls under way")
    assert served.sdk.batches.cancel(batch.id).status == "cancelling"
    ended = served.ended(batch.id)
    assert (ended.status, ended.request_counts.failed) == ("cancelled", 5)
    eventually(lambda: served.fake.seen.in_flight == 0, within=20, what="calls dropped")
    with pytest.raises(openai.BadRequestError):
        served.sdk.batches.cancel(batch.id)


def test_an_upload_without_end(served: Served) -> None:
    """300 MB that do not say so are refused when 200 have come; meanwhile others are answered, and the process holds
    little of it. A reader that takes its time keeps nobody waiting."""
    headers = {"Authorization": f"Bearer {served.key}", "Content-Type": "multipart/form-data; boundary=b"}
    before, answered, sent = resident_mb(served.replica.pid), [], 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(300):
            sent += 1
            if sent % 50 == 0:
                started = time.monotonic()
                served.replica.http.get("/health/live").raise_for_status()
                answered.append(time.monotonic() - started)
            yield b"x" * MEGABYTE

    with httpx.Client(trust_env=False, timeout=60) as http:
        try:
            status = http.post(f"{served.url}/files", content=body(), headers=headers).status_code
        except httpx.TransportError:  # the connection is closed while the rest is still being sent
            status = 413
    assert status == 413
    assert sent < 230
    assert max(answered) < 2.0
    assert resident_mb(served.replica.pid) - before < 60
    files = served.replica.http.get("/v1/files", headers=ADMIN).json()
    assert files["data"] == []

    big = served.sdk.files.create(file=("big", b"y" * (20 * MEGABYTE)), purpose="user_data")
    slow = {"Authorization": f"Bearer {served.key}"}
    with httpx.stream("GET", f"{served.url}/files/{big.id}/content", headers=slow, trust_env=False) as reading:
        taken = reading.iter_raw(1)
        assert next(taken) == b"y"
        assert served.sdk.files.retrieve(big.id).bytes == 20 * MEGABYTE
        assert next(taken) == b"y"
