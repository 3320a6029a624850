"""What becomes of a stream's record when the storage fails, when its process is taken for dead, when nobody reads."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import date
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from engine.errors import ServiceStopping, StorageUnavailable
from engine.llm import Completion, CompletionRequest, Provider, Usage
from engine.records.store import Storage
from engine.records.streams import Stream, StreamStatus, lost
from engine.usage import UsageQuery
from llm_workers.live import Live
from llm_workers.providers.registry import Registry
from tests.support.api import new_streaming
from tests.support.factories import NOW, make_model, make_stream
from tests.support.faulty import Fault, Faulty, Plan
from tests.support.service import one_of_each
from utilities.clock import SystemClock

pytestmark = pytest.mark.parametrize("backend", one_of_each(), indirect=True)

EVER = UsageQuery(first=date.min, last=date.max, group_by=frozenset())
STREAM = "5" * 24
PIECES = 100
FEW = 20


@dataclass
class Talking:
    """A provider whose every stream says a hundred pieces; `said` counts them, `gate` holds the last ones back."""

    needs_key: ClassVar[bool] = False
    said: int = 0
    closed: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def complete(self, request: CompletionRequest) -> Completion:
        raise NotImplementedError(request.attempt_id)

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[str | Completion, None]:
        try:
            for number in range(PIECES):
                if number == PIECES - 1:
                    await self.gate.wait()
                self.said += 1
                yield f"{number} "
            usage = Usage(input_tokens=1, output_tokens=PIECES)
            yield Completion(text="", usage=usage, request_id=request.attempt_id)
        finally:
            self.closed += 1

    async def aclose(self) -> None:
        """Holds nothing."""


class _Registry(Registry):
    """Knows one provider, under the name `test`."""

    def __init__(self, provider: Provider) -> None:
        super().__init__()
        self._provider = provider

    def create(self, sdk: str, transport: Any = None) -> Provider:
        return self._provider


Play = Callable[[Live, Talking], Awaitable[None]]


def played(storage: Any, play: Play) -> Talking:
    """Opens one stream and does `play` with it; the stream has ended when this returns."""

    async def run() -> Talking:
        provider = Talking()
        streaming = new_streaming(storage, SystemClock(), registry=_Registry(provider))
        live = await streaming.open(make_stream(id=STREAM, lease=None))
        await play(live, provider)
        assert live.task is not None
        await asyncio.wait({live.task})
        await streaming.aclose()
        return provider

    storage.models.add(make_model())
    return asyncio.run(run())


async def read_all(live: Live, provider: Talking) -> None:
    provider.gate.set()
    while await live.next() is not None:
        pass


def stored(storage: Storage) -> Stream:
    found = storage.streams.get(STREAM)
    assert found is not None
    return found


def failing(storage: Storage, plan: Plan) -> Any:
    """The storage, of which the plan spoils what is done with streams: the first operation adds the record, the second
    ends it."""
    names = ("models", "prompts", "evaluators", "clients", "workers", "shared", "usage")
    ports = {name: getattr(storage, name) for name in names}
    return SimpleNamespace(**ports, streams=Faulty(storage, plan).streams)


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER, Fault.REPEAT])
def test_an_outage_at_the_end(storage: Storage, fault: Fault) -> None:
    """Where the storage fails as the record is to end, done or not done, it is asked again: one call, one record, its
    calls once in the usage."""
    provider = played(failing(storage, Plan(fault, hit=2)), read_all)

    assert (provider.said, stored(storage).status) == (PIECES, StreamStatus.COMPLETED)
    assert stored(storage).text.endswith(" 99 ")
    assert [row.calls for row in storage.usage.rows(EVER)] == [1]


def test_an_outage_at_the_beginning(storage: Storage) -> None:
    """A stream whose record cannot be stored is not begun."""
    with pytest.raises(StorageUnavailable):
        played(failing(storage, Plan(Fault.BEFORE, hit=1)), read_all)
    assert storage.streams.get(STREAM) is None


def test_one_taken_for_dead(storage: Storage) -> None:
    """Where another replica has ended the record as lost, the stream's own end goes over it, and its true cost over
    the unknown one."""

    async def play(live: Live, provider: Talking) -> None:
        assert storage.streams.end(lost(stored(storage), NOW))
        await read_all(live, provider)

    played(storage, play)

    stream = stored(storage)
    assert (stream.status, stream.failure, stream.revision) == (StreamStatus.COMPLETED, None, 2)
    [row] = storage.usage.rows(EVER)
    assert (row.calls, row.unknown, row.output_tokens) == (1, 0, PIECES)


def test_nobody_reads(storage: Storage) -> None:
    """A reader that takes its time keeps the provider waiting, with a few pieces in between; hanging up closes the call
    and keeps what had come."""

    async def play(live: Live, provider: Talking) -> None:
        for _ in range(PIECES):
            await asyncio.sleep(0)
        assert await live.next() == "0 "
        assert provider.said < FEW
        live.hang_up()
        live.hang_up()

    provider = played(storage, play)

    stream = stored(storage)
    assert (provider.closed, stream.failure is not None) == (1, True)
    assert stream.text.startswith("0 1 2 ")
    assert [call.outcome for call in stream.calls] == ["unknown"]
    assert stream.totals.output_tokens > 0


def test_nobody_reads_the_end(storage: Storage) -> None:
    """Hanging up after the provider has said all, before it is read, changes nothing of the record and leaves no task
    behind."""

    async def play(live: Live, provider: Talking) -> None:
        provider.gate.set()
        for _ in range(PIECES - FEW // 2):
            await live.next()
        for _ in range(PIECES):
            await asyncio.sleep(0)
        assert stored(storage).status is StreamStatus.COMPLETED
        live.hang_up()

    played(storage, play)

    assert (stored(storage).status, stored(storage).failure) == (StreamStatus.COMPLETED, None)


def test_closing_ends_what_is_left(storage: Storage) -> None:
    """What streams when the service is closed ends with that reason, and its reader is told."""

    async def run() -> None:
        provider = Talking()
        streaming = new_streaming(storage, SystemClock(), registry=_Registry(provider))
        live = await streaming.open(make_stream(id=STREAM, lease=None))
        assert await live.next() == "0 "
        await streaming.aclose()
        with pytest.raises(ServiceStopping):
            await read_all(live, provider)
        assert (provider.closed, streaming.open_streams) == (1, 0)

    storage.models.add(make_model())
    asyncio.run(run())
    failure = stored(storage).failure
    assert failure is not None
    assert failure.error_type == "ServiceStopping"
