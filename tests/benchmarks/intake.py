"""Jobs into the service: in batches, one by one, and what it costs to know who sends them."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from statistics import median
from typing import Any

import aiohttp

from api.core.authentication import Authenticator, Credentials
from api.core.gate import Gate
from engine.records.store import Storage
from llm_workers.loops import new_event_loop
from tests.benchmarks.account import BATCH, Account
from tests.benchmarks.stage import BACKENDS, LABEL, Stage, cpu_seconds
from tests.benchmarks.table import Row, at_least, at_most, number, spread
from tests.support.api import ADMIN_KEY, PEPPER
from tests.support.factories import make_client
from utilities.clock import SystemClock
from utilities.keys import KeyHasher

CALLERS = 32
BATCH_CALLERS = 2
JSON = {"Content-Type": "application/json"}


def run(coroutine: Coroutine[Any, Any, float]) -> float:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(coroutine)


async def posted(account: Account, path: str, body: bytes, requests: int, callers: int) -> float:
    """Seconds that so many requests take, each read to its end and answered 201."""
    numbers = iter(range(requests))
    url = f"{account.replica.http.base_url}".rstrip("/") + path
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers={**account.headers, **JSON}) as session:

        async def one_after_another() -> None:
            for _ in numbers:
                async with session.post(url, data=body) as answer:
                    await answer.read()
                    if answer.status != 201:
                        raise RuntimeError(f"POST {path}: {answer.status}")

        started = time.monotonic()
        await asyncio.gather(*(one_after_another() for _ in range(callers)))
        return time.monotonic() - started


def batch(stage: Stage) -> Iterator[Row]:
    """POST /jobs/batch of 1,000, whole jobs in the answer, SQLite with synchronous=FULL."""
    requests = stage.size(20, 3)
    with ExitStack() as stack:
        accounts = {backend: stack.enter_context(stage.account(backend)) for backend in BACKENDS}
        body = {name: json.dumps({"jobs": [it.job()] * BATCH}).encode() for name, it in accounts.items()}

        def rate(name: str) -> tuple[float, float]:
            before = cpu_seconds(accounts[name].pid)
            seconds = run(posted(accounts[name], "/jobs/batch", body[name], requests, BATCH_CALLERS))
            used = cpu_seconds(accounts[name].pid) - before
            return requests * BATCH / seconds, used * 1e6 / (requests * BATCH)

        for account in accounts.values():
            _check_whole(account, account.call("POST", "/jobs/batch", {"jobs": [account.job()] * BATCH}))
        found = stage.rounds({name: lambda name=name: rate(name) for name in accounts})
        for name in accounts:
            yield Row(
                name=f"POST /jobs/batch of 1,000, {LABEL[name]}",
                measured=median(rate for rate, _ in found[name]),
                unit="jobs/s",
                goal=at_least(25_000),
                note=f"{BATCH_CALLERS} callers; rounds {spread([rate for rate, _ in found[name]])}; "
                f"CPU {number(median(cpu for _, cpu in found[name]))} µs a job",
            )


def _check_whole(account: Account, answered: list[dict[str, Any]]) -> None:
    if len(answered) != BATCH or answered[0] != account.call("GET", f"/jobs/{answered[0]['jobId']}"):
        raise RuntimeError("the answer does not hold the whole jobs")


def single(stage: Stage) -> Iterator[Row]:
    """POST /jobs one by one, authenticated, by 32 callers at once."""
    requests = stage.size(6000, 500)
    with ExitStack() as stack:
        accounts = {backend: stack.enter_context(stage.account(backend)) for backend in BACKENDS}

        def rate(account: Account) -> tuple[float, float]:
            body = json.dumps(account.job()).encode()
            before = cpu_seconds(account.pid)
            seconds = run(posted(account, "/jobs", body, requests, CALLERS))
            return requests / seconds, (cpu_seconds(account.pid) - before) * 1000 / requests

        found = stage.rounds({name: lambda account=account: rate(account) for name, account in accounts.items()})
    for name, rates in found.items():
        yield Row(
            name=f"POST /jobs one by one, {CALLERS} callers, {LABEL[name]}",
            measured=median(rate for rate, _ in rates),
            unit="requests/s",
            goal=at_least(3000),
            note=f"rounds {spread([rate for rate, _ in rates])}; CPU {number(median(cpu for _, cpu in rates))} ms each",
        )


def authentication(stage: Stage) -> Iterator[Row]:
    """What judging a client's key costs, for a client that was just here and for one that was not."""
    times = stage.size(5000, 200)
    for backend in BACKENDS:
        with stage.fleet(backend) as (_, storage):
            known, unknown = _authenticated(stage, storage, times)
        yield Row(
            name=f"authentication, client known, {LABEL[backend]}",
            measured=median(known),
            unit="ms",
            goal=at_most(0.2),
            note="again within a second, as all but the first request of a busy client",
        )
        yield Row(
            name=f"authentication, client not known, {LABEL[backend]}",
            measured=median(unknown),
            unit="ms",
            goal=at_most(0.2),
            note="CPU of the whole process, with its read of the database and the hop to a thread",
        )


def _authenticated(stage: Stage, storage: Storage, times: int) -> tuple[list[float], list[float]]:
    hasher = KeyHasher(PEPPER)
    key, salt = hasher.new_key(), hasher.new_salt()
    hashed = {"key_lookup": hasher.lookup(key), "key_salt": salt, "key_hash": hasher.salted(key, salt)}
    client = make_client(**hashed)
    storage.clients.add(client)
    gate = Gate(storage.jobs)
    judge = Authenticator(storage.clients, hasher, ADMIN_KEY, gate, SystemClock())
    given = Credentials(client_id=client.id, client_key=key)

    async def judged(before: Callable[[], None]) -> float:
        await judge.either(given)
        started = time.process_time()
        for _ in range(times):
            before()
            await judge.either(given)
        return (time.process_time() - started) * 1000 / times

    try:
        found = stage.rounds(
            {"known": lambda: run(judged(lambda: None)), "not known": lambda: run(judged(judge.forget))}
        )
    finally:
        gate.close()
    return found["known"], found["not known"]
