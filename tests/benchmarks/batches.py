"""A batch of OpenAI's batch API, from upload to output file, beside a loop of the bare SDK that keeps nothing."""

import json
import time
from collections.abc import Iterator
from functools import partial
from statistics import median
from typing import Any

import httpx

from tests.benchmarks.account import Account
from tests.benchmarks.stage import BACKENDS, LABEL, Stage
from tests.benchmarks.table import Row, number

LINES = 50_000
IN_FLIGHT = 200
LATENCY = 0.05
ENDED = ("completed", "failed", "expired", "cancelled")
WITHIN = 900.0
CHAT = "/v1/chat/completions"


def batches(stage: Stage) -> Iterator[Row]:
    """50,000 requests in one file: uploaded, validated, run as jobs, and written to the output file."""
    lines = stage.size(LINES, 500)
    bare = stage.rounds({"bare": lambda: _bare(stage, lines)}, times=stage.size(2, 1))["bare"]
    for backend in BACKENDS:
        with stage.account(backend, batch_worker="true", max_items_per_batch=IN_FLIGHT) as account:
            stage.provider.reset(LATENCY)
            upload, validated, whole = _run(account, lines)
        yield Row(
            name=f"a batch of {lines:,} requests, upload to output file, {LABEL[backend]}",
            measured=whole,
            unit="s",
            baseline=median(bare),
            note=f"{number(lines / whole)} requests a second, {IN_FLIGHT} in flight, {LATENCY * 1000:.0f} ms a call; "
            f"uploaded after {number(upload)} s, validated after {number(validated)}; baseline: the bare SDK, "
            "as many in flight, keeping nothing",
        )


def _bare(stage: Stage, lines: int) -> float:
    stage.provider.reset(LATENCY)
    return stage.provider.bare("OpenAI", lines, IN_FLIGHT)["seconds"]


def _run(account: Account, lines: int) -> tuple[float, float, float]:
    """Seconds from the start until the file is uploaded, the lines are found valid, and the output has been read."""
    headers = {"Authorization": f"Bearer {account.headers['client_api_key']}"}
    content = b"".join(map(partial(_line, account.model), range(lines)))
    with httpx.Client(base_url=account.replica.http.base_url, headers=headers, timeout=120, trust_env=False) as http:
        started = time.monotonic()
        form = {"purpose": "batch"}
        file = http.post("/v1/files", data=form, files={"file": ("in.jsonl", content)}).raise_for_status().json()
        uploaded = time.monotonic() - started
        body = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
        batch = http.post("/v1/batches", json=body).raise_for_status().json()
        validated = 0.0
        while batch["status"] not in ENDED:
            if time.monotonic() - started > WITHIN:
                raise TimeoutError(f"the batch is {batch['status']} after {WITHIN:.0f} s")
            time.sleep(0.2)
            batch = http.get(f"/v1/batches/{batch['id']}").raise_for_status().json()
            if not validated and batch["status"] != "validating":
                validated = time.monotonic() - started
        return uploaded, validated, _finished(http, batch, lines, started)


def _finished(http: httpx.Client, batch: dict[str, Any], lines: int, started: float) -> float:
    output = http.get(f"/v1/files/{batch['output_file_id']}/content").raise_for_status().content
    if batch["request_counts"]["completed"] != lines or output.count(b"\n") != lines:
        raise RuntimeError(f"not every request was answered: {batch['request_counts']}")
    return time.monotonic() - started


def _line(model: str, place: int) -> bytes:
    messages = [{"role": "system", "content": "Answer as JSON."}, {"role": "user", "content": f"request {place}"}]
    body = {"model": model, "messages": messages, "max_tokens": 100}
    line = {"custom_id": f"request-{place}", "method": "POST", "url": CHAT, "body": body}
    return json.dumps(line).encode() + b"\n"
