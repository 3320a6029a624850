"""How a process's lanes follow what is stored."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from engine.llm import Completion, CompletionRequest, Endpoint, QuotaExhausted, TransientProviderError, Usage
from engine.records.store import Storage
from engine.records.values import Model
from engine.storage.factory import open_storage
from llm_workers.lane import Reason, Shut
from llm_workers.lanes import Lanes
from tests.support.factories import NOW, make_model
from utilities.clock import SystemClock

REQUEST = CompletionRequest(endpoint=Endpoint(sdk="test", base_url="", deployment="m"), system="", user="hello")


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    """Which back-end it is does not matter here."""
    storage = open_storage(f"sqlite:///{tmp_path / 'lanes.db'}", database="test", synchronous="NORMAL")
    yield storage
    storage.close()


async def _here(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


class _Clock(SystemClock):
    """`ahead` of this machine's by so many seconds."""

    ahead = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


def _stored(storage: Storage, **fields: Any) -> Model:
    model = make_model(**fields)
    storage.models.add(model)
    return model


def test_a_deleted_model_leaves_nothing_behind(storage: Storage) -> None:
    """Its lane goes once nothing runs there, and a new model of its name is claimed for by its own state at once."""
    clock, old = _Clock(), _stored(storage)
    lanes = Lanes(storage, clock=clock, hop=_here, replica="a")
    lane = lanes.lane(old)
    lane.arrive()
    assert lane.place(1, lanes.now()) is None
    lane.shut(Shut(lanes.now() + 900, Reason.QUOTA, "no money"))
    assert storage.models.compare_and_set(replace(old, metadata=old.metadata.deleted(NOW, "admin")))
    new = _stored(storage)

    lanes.tick()
    assert lanes.models()[old.name].id == new.id
    assert lanes.of(old) is lane
    lane.dropped()
    clock.ahead = 2.0
    lanes.tick()
    assert lanes.of(old) is None


def test_a_breaker_is_logged_once_per_change(storage: Storage) -> None:
    """However many calls fail and are answered, the log says once that it opened, that it probes and that it closed."""
    model, clock = _stored(storage), _Clock()
    lanes = Lanes(storage, clock=clock, hop=_here, replica="a")

    async def fail() -> None:
        with suppress(TransientProviderError):
            async with lanes.call(model, REQUEST):
                raise TransientProviderError("down", status=503)

    async def answer() -> None:
        async with lanes.call(model, REQUEST) as call:
            call.completion = Completion(text="{}", usage=Usage())

    async def run() -> None:
        for _ in range(20):
            await fail()
        clock.ahead = 5.1
        for _ in range(5):
            await answer()

    with capture_logs() as logs:
        asyncio.run(run())
    assert [event["state"] for event in logs if event["event"] == "breaker_changed"] == ["open", "half-open", "closed"]


def test_claims_go_on_when_a_model_is_shut(storage: Storage) -> None:
    """Jobs that it had no room for may go to its fallbacks from then on, so claims do not wait for the next poll."""
    model, claims = _stored(storage), list[None]()
    lanes = Lanes(storage, clock=SystemClock(), hop=_here, replica="a")
    lanes.on_room = lambda: claims.append(None)

    async def run() -> None:
        async with lanes.call(model, REQUEST):
            raise QuotaExhausted("no money", status=429)

    with suppress(QuotaExhausted):
        asyncio.run(run())
    assert claims == [None]
