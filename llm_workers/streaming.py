"""Streams: one call, answered piece by piece to whoever waits for it, in the lanes, routes and wallets that jobs have.

Each stream is a task on the event loop that its streams share: no thread belongs to any. The reader takes the pieces
from a short queue. Where that is full, the task waits, and with it the connection to the provider.
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

import orjson
import structlog

from engine.errors import (
    MetasyncError,
    Refused,
    ServiceStopping,
    StorageError,
    StorageUnavailable,
    UnknownReference,
)
from engine.jobs.job import Failure, Lease
from engine.jobs.queue import Hold
from engine.llm import (
    Completion,
    CompletionRequest,
    JsonObject,
    PermanentProviderError,
    Provider,
    ProviderError,
    ProviderRefusedKey,
    SecretSource,
    Timeouts,
    Usage,
)
from engine.records.streams import OPERATION, STREAM_LOST, Stream, StreamStatus, StreamStore, lost
from engine.records.values import Model
from llm_workers.asking import pieces, prepare
from llm_workers.booking import Booking
from llm_workers.catalogue import Catalogue
from llm_workers.chats import CHAT
from llm_workers.keys import Keys
from llm_workers.lanes import Lanes
from llm_workers.live import Live
from llm_workers.prompting import completion_request, request_to, system_text
from llm_workers.providers.registry import ProviderSet
from llm_workers.routes import Routes, most_hopeful
from llm_workers.wallets import Wallets
from utilities.backoff import full_jitter
from utilities.clock import Clock
from utilities.hop import Hop

LONGEST_TEXT = 2_000_000
"""Characters of a text, and bytes of a whole answer, that a record keeps: with the prompt they fit into one document of
every database."""

_LONGEST_RAW = 64 * 1024
_TRIES = 8
_FIRST_PAUSE = timedelta(milliseconds=200)
_LONGEST_PAUSE = timedelta(seconds=5)
_ENDED_AT_ONCE = 100

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTerms:
    """`replica` names this process and no other; its streams' records end as lost when it is silent for `lease`."""

    replica: str
    lease: timedelta = timedelta(seconds=60)


@dataclass(slots=True)
class _Question:
    """What is asked, of which models in turn; `keys` are theirs, by name."""

    named: Model
    way: Sequence[Model]
    keys: dict[str, str | None]
    system: str


class Streaming:
    """Implements engine.records.control.LiveStreams. For one event loop, `tick` aside."""

    def __init__(
        self,
        terms: StreamTerms,
        *,
        store: StreamStore,
        providers: ProviderSet,
        catalogue: Catalogue,
        secrets: SecretSource,
        clock: Clock,
        hop: Hop,
        lanes: Lanes,
        wallets: Wallets,
        timeouts: Timeouts | None = None,
        rng: random.Random | None = None,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._terms = terms
        self._store = store
        self._providers = providers
        self._catalogue = catalogue
        self._keys = Keys(providers, secrets, hop)
        self._clock = clock
        self._hop = hop
        self._lanes = lanes
        self._wallets = wallets
        self._timeouts = timeouts or Timeouts()
        self._rng = rng or random.Random()
        self._routes = Routes(catalogue, lanes, self._rng)
        self._pause = pause
        self._live: set[Live] = set()
        self._beating: asyncio.Task[None] | None = None
        self._look_at = -math.inf

    @property
    def open_streams(self) -> int:
        return len(self._live)

    async def open(self, stream: Stream, admitted: Callable[[], Awaitable[object]] | None = None) -> Live:
        question = await self._question(stream)
        if admitted is not None:
            await admitted()
        began = self._clock.monotonic()
        held = replace(stream, lease=Lease(self._terms.replica, self._clock.now() + self._terms.lease))
        await self._hop(self._store.add, held)
        live = Live(held, began)
        self._live.add(live)
        live.task = asyncio.create_task(self._run(live, question))
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat())
        await asyncio.sleep(0)  # a task that is cancelled before its first step would never write its end
        return live

    def drain(self, grace: float) -> None:
        """In `grace` seconds ends what has not ended by then. From the event loop."""
        asyncio.get_running_loop().call_later(grace, self.interrupt)

    def interrupt(self) -> None:
        """Ends all streams now."""
        for live in list(self._live):
            live.interrupt(ServiceStopping("the service stops, and its grace is over"))

    async def aclose(self) -> None:
        """Ends all streams, waits until their records are written, and closes the providers."""
        self.interrupt()
        tasks = [live.task for live in self._live if live.task is not None]
        if tasks:
            await asyncio.wait(tasks)
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait({self._beating})
        await self._providers.aclose()

    def tick(self) -> float:
        """Now and then ends what is lost. From any one thread; raises StorageUnavailable. Seconds until it is due."""
        now = self._clock.monotonic()
        if now >= self._look_at:
            more = self.end_lost() == _ENDED_AT_ONCE
            self._look_at = now + (0.0 if more else self._terms.lease.total_seconds() / 6)
        return self._look_at - now

    def end_lost(self) -> int:
        """Ends the records of processes that have fallen silent; answers how many. Any number of replicas may do so
        at once."""
        now = self._clock.now()
        expired = self._store.expired(now, _ENDED_AT_ONCE)
        ended = [stream for stream in expired if self._store.end(lost(stream, now))]
        for stream in ended:
            log.warning("stream_lost", stream=stream.id, owner=stream.lease.owner if stream.lease else None)
        return len(ended)

    async def _question(self, stream: Stream) -> _Question:
        named = await self._catalogue.model(stream.model)
        system = system_text(await self._catalogue.prompts(stream.additional_prompts))
        way = await self._routes.to(named)
        keys: dict[str, str | None] = {}
        missing: list[MetasyncError] = []
        for model in way:
            try:
                keys[model.name] = await self._keys.of(model)
            except (ProviderRefusedKey, UnknownReference) as error:
                missing.append(error)
        if not keys:
            raise Refused(str(missing[0]))
        return _Question(named, [model for model in way if model.name in keys], keys, system)

    async def _run(self, live: Live, question: _Question) -> None:
        try:
            await self._answered(live, question)
        except BaseException as error:  # noqa: BLE001 - whatever ends a stream, its record says so
            live.asked(error)
        else:
            live.asked(None)
        try:
            live.stream = await self._stored(self._ended(live))
        except Exception as error:
            log.exception("stream_not_recorded", stream=live.stream.id)
            live.error = live.error or (error if isinstance(error, MetasyncError) else StorageError("not recorded"))
        finally:
            self._wallets.ended(Hold(live.stream.id, live.stream.token))
            self._live.discard(live)
        _tell(live)
        await live.close()

    async def _answered(self, live: Live, question: _Question) -> None:
        """One model's answer: the next one's only where nothing has been said yet."""
        failures: list[MetasyncError] = []
        for place, model in enumerate(question.way):
            try:
                return await self._asked(live, model, self._request(live, question, model, place))
            except (ProviderError, UnknownReference) as error:
                failures.append(error)
                if live.said or not self._routes.goes_on(error, question.named, model):
                    break
        raise failures[-1] if live.said else most_hopeful(failures)

    async def _asked(self, live: Live, model: Model, request: CompletionRequest) -> None:
        """One call, which is on the stream's ledger however it ends."""
        provider = await self._providers.get(model.sdk)
        await prepare(provider, request)
        async with self._wallets.call(live.stream, model, partial(self._lanes.cost, model, request)) as spending:
            booking = Booking(live, OPERATION, model, self._clock)
            try:
                async with self._lanes.call(model, request) as call:
                    booking.begin()
                    now = self._clock.now()
                    booking.completion = call.completion = completion = await _said(live, provider, request, now)
                    live.answer = completion.body
            except BaseException as error:
                spending.made = booking.end_badly(error, self._so_far(live, model, request))
                raise
            spending.made = booking.end_well(completion)

    def _so_far(self, live: Live, model: Model, request: CompletionRequest) -> Usage | None:
        """A guess, where a part of the answer has come."""
        characters = live.characters
        return self._lanes.lane(model).estimator.so_far(request, characters) if characters else None

    def _request(self, live: Live, question: _Question, model: Model, place: int) -> CompletionRequest:
        elsewhere = f"-f{place}" if place else ""
        key, attempt_id = question.keys[model.name], f"{live.stream.id}-{OPERATION}{elsewhere}"
        chat = live.stream.chat
        if chat is not None:
            path = live.stream.endpoint or CHAT
            return request_to(path, model, key, body=chat, attempt_id=attempt_id, timeouts=self._timeouts)
        return completion_request(
            model,
            key,
            system=question.system,
            user=live.stream.user_prompt,
            temperature=live.stream.temperature,
            response_format="text",
            attempt_id=attempt_id,
            timeouts=self._timeouts,
        )

    def _ended(self, live: Live) -> Stream:
        """The record of a stream that has been asked to its end."""
        now, error = self._clock.now(), live.error
        text = "".join(live.said).encode("utf-8", "replace").decode()
        return replace(
            live.stream,
            status=StreamStatus.COMPLETED if error is None else StreamStatus.ERROR,
            text=text[:LONGEST_TEXT],
            answer=_kept(live) if error is None else None,
            failure=None if error is None else _failure(error, live, now=now),
            calls=tuple(live.calls),
            total_duration=max(self._clock.monotonic() - live.began, sum(call.duration for call in live.calls)),
            completed_at=now,
            lease=None,
            metadata=live.stream.metadata.touched(now, OPERATION),
        )

    async def _stored(self, ended: Stream) -> Stream:
        """Writes the end; an outage is waited out, for some twenty seconds."""
        for number in range(1, _TRIES):
            try:
                return await self._hop(self._written, ended)
            except StorageUnavailable:
                wait = full_jitter(number, base=_FIRST_PAUSE, cap=_LONGEST_PAUSE, rng=self._rng)
            await self._pause(wait.total_seconds())
        return await self._hop(self._written, ended)

    def _written(self, ended: Stream) -> Stream:
        """Also where somebody has taken this process for dead: what is known goes over what was not."""
        while not self._store.end(ended):
            stored = self._store.get(ended.id)
            if stored is None or (stored.failure is None or stored.failure.error_type != STREAM_LOST):
                break
            ended = replace(ended, revision=stored.revision)
        return replace(ended, revision=ended.revision + 1)

    async def _beat(self) -> None:
        """Keeps the records' leases, as long as there are streams."""
        while self._live:
            await self._pause(self._terms.lease.total_seconds() / 3)
            try:
                await self._hop(self._store.renew, self._terms.replica, self._clock.now() + self._terms.lease)
            except Exception as error:  # noqa: BLE001 - one beat that is left out must not end the others
                log.warning("stream_leases_not_renewed", error_type=type(error).__name__)
        self._beating = None


async def _said(live: Live, provider: Provider, request: CompletionRequest, now: datetime) -> Completion:
    """Hands the pieces on as they come."""
    async with aclosing(pieces(provider, request, now)) as said:
        async for piece in said:
            if isinstance(piece, Completion):
                return piece
            await live.say(piece)
    raise PermanentProviderError(f"{request.endpoint.sdk}: the stream ended without a completion")


def _kept(live: Live) -> JsonObject | None:
    """The answer to say again, where somebody may ask for that and a document can hold it."""
    if not live.stream.repeatable or live.answer is None:
        return None
    try:
        return live.answer if len(orjson.dumps(live.answer)) <= LONGEST_TEXT else None
    except TypeError:  # a vendor's answer may be nested too deeply to be written
        return None


def _failure(error: MetasyncError, live: Live, *, now: datetime) -> Failure:
    told = error if isinstance(error, ProviderError) else None
    raw = None if told is None or live.said else told.raw
    return Failure(
        error_type=type(error).__name__,
        message=str(error),
        attempts=max(1, len(live.calls)),
        at=now,
        raw=None if raw is None else raw[:_LONGEST_RAW],
        status=None if told is None else told.status,
        complaint=None if told is None else told.complaint,
    )


def _tell(live: Live) -> None:
    stream = live.stream
    log.info(
        "stream_ended",
        stream=stream.id,
        client_id=stream.client_id,
        model=stream.model,
        status=str(stream.status),
        seconds=stream.total_duration,
        error_type=None if live.error is None else type(live.error).__name__,
    )
