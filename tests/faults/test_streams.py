"""Streams over real sockets and processes: fault 24 of docs/promises.md, a killed process, a drain, 500 at once."""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from engine.jobs.queue import Page
from engine.records.streams import Stream, StreamQuery, StreamStatus
from engine.usage import Dimension, UsageQuery, UsageRow
from tests.support.backends import SQLITE, Database, Servers, fresh_database
from tests.support.customer import MODEL, Customer, serving
from tests.support.fake_provider.server import PLAIN_ANSWER
from tests.support.service import Replica, one_of_each
from tests.support.waiting import eventually

EVENTS = {"Accept": "text/event-stream"}
DRIP = "[[drip seconds=0.3]]"
LEASE = 1.0
GRACE = 1.0
AT_ONCE = 500
MOST_THREADS = 40
WITHIN = 1.0
"""Seconds: what health and a quick stream may take on a busy machine beside 500 slow ones."""

on_each_kind = pytest.mark.parametrize("backend", one_of_each(), indirect=True)


@pytest.fixture
def local(storage_servers: Servers, tmp_path: Path) -> Iterator[Database]:
    """SQLite alone, for what does not depend on the back-end."""
    with fresh_database(SQLITE, storage_servers, tmp_path) as database:
        yield database


def body(text: str) -> dict[str, Any]:
    return {"userPrompt": text, "model": MODEL}


@contextmanager
def streaming(customer: Customer, replica: Replica, text: str) -> Iterator[httpx.Response]:
    """A stream whose first piece has come; the connection is closed with the block."""
    with replica.http.stream("POST", "/stream", json=body(text), headers={**customer.headers, **EVENTS}) as answer:
        assert answer.status_code == 200
        yield answer


def ended(customer: Customer) -> Stream:
    """The only stream, once it has ended."""

    def look() -> Stream | None:
        [stream] = customer.storage.streams.find(StreamQuery(), Page())
        return None if stream.status is StreamStatus.STREAMING else customer.storage.streams.get(stream.id)

    return eventually(look, within=15, what="the stream's record ended")


def used(customer: Customer, stream: Stream) -> UsageRow:
    day = stream.metadata.created_at.date()
    query = UsageQuery(first=day, last=day, group_by=frozenset({Dimension.OPERATION}))
    [row] = customer.storage.usage.rows(query)
    assert row.operation == "stream"
    return row


@on_each_kind
def test_a_client_that_hangs_up(database: Database, tmp_path: Path) -> None:
    """Fault 24: the provider's call is closed at once, and the record ends in error with the partial text, the tokens
    so far, what they cost, and the reason; also where nothing had come yet."""
    with serving(database, tmp_path) as (customer, [replica]):
        with streaming(customer, replica, DRIP) as answer:
            first = json.loads(next(answer.iter_lines()).removeprefix("data: "))["content"]
        customer.fake.seen.wait_until(lambda seen: seen.hung_up == 1, timeout=2)
        stream = ended(customer)
        assert (stream.status, stream.lease) == (StreamStatus.ERROR, None)
        assert stream.failure is not None
        assert stream.failure.error_type == "ClientDisconnected"
        assert stream.text.startswith(first)
        [call] = stream.calls
        assert (call.outcome, call.error_type) == ("unknown", "CancelledError")
        assert call.output_tokens is not None
        assert 0 < call.output_tokens <= len(stream.text)
        row = used(customer, stream)
        assert (row.calls, row.unknown, row.output_tokens) == (1, 1, call.output_tokens)
        assert row.input_cost + row.output_cost == stream.totals.input_cost + stream.totals.output_cost > 0

        with pytest.raises(httpx.ReadTimeout):
            replica.http.post("/stream", json=body("[[hang]]"), headers=customer.headers, timeout=0.5)
        customer.fake.seen.wait_until(lambda seen: seen.hung_up == 2, timeout=2)
        silent = eventually(lambda: _without_text(customer), what="the second record ended")
        assert silent.calls[0].outcome == "unknown"


def _without_text(customer: Customer) -> Stream | None:
    found = customer.storage.streams.find(StreamQuery(status="error"), Page())
    return next((each for each in found if not each.calls or each.calls[0].output_tokens is None), None)


@on_each_kind
def test_a_killed_process(database: Database, tmp_path: Path) -> None:
    """The record of a stream whose process was killed is ended by another one when its lease has run out: as lost, its
    call's cost unknown."""
    with serving(database, tmp_path, replicas=2, lease_seconds=LEASE) as (customer, [replica, _]):
        with pytest.raises(httpx.TransportError):
            _killed_midway(customer, replica)
        stream = ended(customer)
        assert stream.failure is not None
        assert stream.failure.error_type == "StreamLost"
        row = used(customer, stream)
        assert (row.calls, row.unknown, row.currency) == (1, 1, None)


def _killed_midway(customer: Customer, replica: Replica) -> None:
    with streaming(customer, replica, DRIP) as answer:
        replica.kill()
        answer.read()


@on_each_kind
def test_a_drain(database: Database, tmp_path: Path) -> None:
    """After SIGTERM streams have the grace: one that ends within it is whole, the other ends with an error that its
    reader is told and its record has; the process exits with 0."""
    with serving(database, tmp_path, drain_seconds=GRACE) as (customer, [replica]):
        with streaming(customer, replica, DRIP) as slow, streaming(customer, replica, "[[drip seconds=0.05]]") as quick:
            replica.terminate()
            replica.wait_for("drain_begins")
            assert quick.read().endswith(b"data: [DONE]\n\n")
            last = json.loads(slow.read().decode().split("data: ")[-1])
        assert last["code"] == "service_stopping"
        assert replica.exit_code() == 0
        streams = {each.status: each for each in customer.storage.streams.find(StreamQuery(), Page())}
        failure = streams[StreamStatus.ERROR].failure
        assert failure is not None
        assert (failure.error_type, failure.message) == ("ServiceStopping", last["error"])
        assert streams[StreamStatus.COMPLETED].failure is None


def test_a_plain_stream_that_fails_breaks_off(local: Database, tmp_path: Path) -> None:
    """Nobody takes a part of a plain text for the whole: the connection is closed before the answer's end."""
    with serving(local, tmp_path) as (customer, [replica]):
        for marker in ("[[broken_off]]", "[[cut]]"):
            with pytest.raises(httpx.RemoteProtocolError):
                replica.http.post("/stream", json=body(marker), headers=customer.headers)
        whole = replica.http.post("/stream", json=body("Tell me."), headers=customer.headers)
        assert whole.text == PLAIN_ANSWER


@pytest.mark.timeout(120)
def test_500_at_once(local: Database, tmp_path: Path) -> None:
    """With 500 slow streams under way in one process a quick one and health are answered as if alone, without a thread
    for any stream, and all 500 end whole, their records with them."""
    with serving(local, tmp_path) as (customer, [replica]):
        texts, waits, threads = asyncio.run(_crowd(customer, replica))
        assert texts == [PLAIN_ANSWER] * AT_ONCE
        assert max(waits.values()) < WITHIN, waits
        assert threads < MOST_THREADS
        assert customer.fake.seen.max_in_flight >= AT_ONCE
        assert customer.storage.streams.count(StreamQuery(status="completed")) == AT_ONCE + 1


async def _crowd(customer: Customer, replica: Replica) -> tuple[list[str], dict[str, float], int]:
    base, connector = f"http://127.0.0.1:{replica.port}", aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(base, connector=connector, headers=customer.headers) as http:

        async def streamed(text: str) -> str:
            async with http.post("/stream", json=body(text)) as answer:
                assert answer.status == 200, await answer.text()
                return await answer.text()

        async def asked() -> str:
            async with http.get("/health") as answer:
                return await answer.text()

        crowd = [asyncio.create_task(streamed("[[drip seconds=0.9]]")) for _ in range(AT_ONCE)]
        seen = customer.fake.seen
        await asyncio.to_thread(seen.wait_until, lambda seen: seen.in_flight == AT_ONCE, 30)
        waits, threads = {}, _threads(replica)
        for name, work in (("health", asked), ("quick", lambda: streamed("quick"))):
            started = time.monotonic()
            await work()
            waits[name] = time.monotonic() - started
        return list(await asyncio.gather(*crowd)), waits, threads


def _threads(replica: Replica) -> int:
    return len(os.listdir(f"/proc/{replica.pid}/task"))
