"""Calls that wait for a place in their model's lane."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.llm import Completion, CompletionRequest, Endpoint, Usage
from engine.records.store import Storage
from engine.records.values import Limits, Model
from engine.storage.factory import open_storage
from llm_workers.lanes import Lanes
from tests.support.factories import make_model
from utilities.clock import SystemClock

REQUEST = CompletionRequest(endpoint=Endpoint(sdk="test", base_url="", deployment="m"), system="", user="hello")
ANSWER = Completion(text="{}", usage=Usage(input_tokens=1, output_tokens=1))


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = open_storage(f"sqlite:///{tmp_path}/m.db", database="m")
    yield opened
    opened.close()


async def _inline(function: Any, *args: Any) -> Any:
    return function(*args)


def lanes_of(storage: Storage, replica: str = "a") -> Lanes:
    return Lanes(storage, clock=SystemClock(), hop=_inline, replica=replica)


async def _call(lanes: Lanes, model: Model) -> None:
    async with lanes.call(model, REQUEST) as call:
        await asyncio.sleep(0)
        call.completion = ANSWER


@contextmanager
def ticking(lanes: Lanes) -> Iterator[None]:
    """As a pool keeps its lanes: without that, a part of a shared concurrency that ran out is heard of by nobody who
    waits for it."""
    done = threading.Event()

    def tick() -> None:
        while not done.wait(min(lanes.tick(), 0.05)):
            pass

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()


def test_loops_that_share_a_lane(storage: Storage) -> None:
    """Calls of several event loops that wait for the same few places all get one, and none fails."""
    model = make_model(limits=Limits(concurrency=2))
    storage.models.add(model)
    lanes = lanes_of(storage)

    async def calls() -> list[BaseException | None]:
        return await asyncio.gather(*(_call(lanes, model) for _ in range(300)), return_exceptions=True)

    with ticking(lanes), ThreadPoolExecutor(4) as threads:
        running = [threads.submit(asyncio.run, calls()) for _ in range(4)]
        outcomes = [outcome for each in running for outcome in each.result()]

    assert [outcome for outcome in outcomes if outcome is not None] == []
    assert (lanes.lane(model).running, lanes.lane(model).waiting) == (0, 0)


def test_the_first_call_of_a_shared_concurrency(storage: Storage) -> None:
    """A call that finds its part of the concurrency free is made as soon as the replica has heard of it."""

    async def first() -> None:
        async with asyncio.timeout(0.5):
            await _call(lanes_of(storage), make_model(limits=Limits(concurrency=1)))

    asyncio.run(first())


def test_a_share_that_grows_lets_waiting_calls_in(storage: Storage) -> None:
    """A replica that had to wait for a part of the concurrency calls as soon as it hears that it has one."""
    model = make_model(limits=Limits(concurrency=1))
    storage.models.add(model)
    first, second = lanes_of(storage, "a"), lanes_of(storage, "b")

    async def both() -> None:
        async with first.call(model, REQUEST) as call:
            waiting = asyncio.create_task(_call(second, model))
            for _ in range(20):
                await asyncio.sleep(0)
            assert second.lane(model).waiting == 1
            call.completion = ANSWER
        while first.lane(model).wanted() > 0:
            first.lane(model).cool()
        first.tick()
        second.tick()
        async with asyncio.timeout(0.5):
            await waiting

    asyncio.run(both())
