"""The way to the models: every call takes its place in its model's lane first. One for all event loops of a process."""

import asyncio
import math
import random
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import repeat
from typing import Any

import structlog

from engine.jobs.queue import Page
from engine.llm import CompletionRequest, Level
from engine.pricing import cost_of, to_units
from engine.records.store import Storage, Where
from engine.records.values import Limits, Model
from llm_workers.common_capacity import CommonCapacity
from llm_workers.corrections import Booked
from llm_workers.lane import Lane
from llm_workers.lane_call import LaneCall
from llm_workers.lane_terms import Denied, LaneTerms, Reason, Shut
from llm_workers.routing import Standing
from utilities.clock import Clock
from utilities.hop import Hop

_MOST_ASKED = 500
_MOST_MODELS = 1000
_FEW_MODELS = 100
_READ_SECONDS = 1.0
_NEWS_SECONDS = 1.5
_GATHERINGS = 10
_GATHERING_SECONDS = 0.005
_UNLIMITED = Limits()
_STOPPED = Denied(0.0, Reason.CONCURRENCY, "the loop that asked for it is closing")

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Waiting:
    """A call that waits on its own loop: for a place to become free, or for the instant at which it may start."""

    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    estimate: int = 0

    def tell(self, value: Any) -> None:
        """From any thread; harmless where nobody waits any more."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(_settle, self.future, value)


def _settle(future: "asyncio.Future[Any]", value: Any) -> None:
    if future.done():
        return
    if isinstance(value, BaseException):
        future.set_exception(value)
    else:
        future.set_result(value)


@dataclass(slots=True)
class _Queues:
    """Who waits at one lane. `busy`: a loop is asking for instants for all who wait for one."""

    for_places: deque[_Waiting] = field(default_factory=deque)
    for_starts: deque[_Waiting] = field(default_factory=deque)
    busy: bool = False
    asked_at: float = -math.inf
    hearing: "asyncio.Future[None] | None" = None


class Lanes:
    """`replica` names this process and no other.

    `on_room` is called, from any thread, when jobs are worth claiming that a lane had no room for before.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        clock: Clock,
        hop: Hop,
        replica: str,
        rng: random.Random | None = None,
        terms: LaneTerms | None = None,
    ) -> None:
        self.on_room: Callable[[], None] = _nothing
        self._clock = clock
        self._hop = hop
        self._rng = rng or random.Random()
        self._terms = terms or LaneTerms()
        self._models_store = storage.models
        self._common = CommonCapacity(storage.shared, clock, replica, self._terms)
        self._lock = threading.Lock()
        self._lanes: dict[str, Lane] = {}
        self._models: dict[str, Model] = {}
        self._read_at = 0.0
        self._queues: dict[str, _Queues] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def lane(self, model: Model) -> Lane:
        """The model's lane, made where this is the first time that anyone asks."""
        lane = self._lanes.get(model.id)
        if lane is None:
            with self._lock:
                lane = self._lanes.setdefault(model.id, Lane(model, self._terms, self._rng))
        lane.adopt(model)
        return lane

    def of(self, model: Model) -> Lane | None:
        """The model's lane, None where nobody has asked for it here."""
        return self._lanes.get(model.id)

    def know(self, models: Mapping[str, Model]) -> None:
        """All models by name: which routers and fallbacks there are, and what is limited before the first call."""
        self._models = dict(models)
        for model in models.values():
            if model.limits != _UNLIMITED or model.id in self._lanes:
                self.lane(model)

    def models(self) -> Mapping[str, Model]:
        """The models by name that this process has heard of: as they were last read, and those that were used since."""
        return {**{lane.model.name: lane.model for lane in self.known()}, **self._models}

    def known(self) -> Sequence[Lane]:
        """Lanes of models that were asked in this process."""
        return list(self._lanes.values())

    def levels(self, model_name: str) -> tuple[Level, ...]:
        """What is left of the model's own limits; nothing where it has none, or was not asked for here."""
        model = self.models().get(model_name)
        lane = None if model is None else self.of(model)
        return () if lane is None else lane.levels(self.now())

    def standing(self, model: Model) -> Standing:
        """How a model does here and now."""
        lane = self._lanes.get(model.id)
        if lane is None:
            return Standing()
        now = self.now()
        why, seconds = lane.obstacle(now)
        until = None if seconds is None else self._clock.now() + timedelta(seconds=seconds)
        return Standing(
            open=not why,
            why=why,
            until=until,
            in_flight=lane.running,
            window=lane.window(),
            latency=lane.latency(),
            limited_for=lane.limited_for(now),
        )

    def cost(self, model: Model, request: CompletionRequest) -> int:
        """What the call may cost, in units of pricing.QUANTUM."""
        cost = cost_of(*self.lane(model).estimator.parts(request), model.prices)
        return to_units(cost.input) + to_units(cost.output)

    def call(self, model: Model, request: CompletionRequest) -> LaneCall:
        """The context in which one call is made. Entering it raises ModelPaused where the wait would be long."""
        return LaneCall(self, self.lane(model), request)

    def now(self) -> float:
        """The steady clock's."""
        return self._clock.monotonic()

    async def enter(self, lane: Lane, estimate: int) -> Booked:
        """Has a place and may start now, with this booking. Raises ModelPaused, and StorageUnavailable where limits are
        shared."""
        await self._know_news(lane)
        while True:
            await self._placed(lane, estimate)
            if not lane.is_paced():
                return Booked(estimate)
            booked = await self._started(lane, estimate)
            if booked is not None:
                return booked

    async def left(self, lane: Lane, shut: Shut | None) -> None:
        """A call has ended: its place is free, or its lane shut."""
        self._let_in(lane)
        if shut is not None:
            self.on_room()  # its jobs may go elsewhere now
            await self._announced(lane, shut)

    def tick(self) -> float:
        """What time does to lanes; at most a few queries. Answers after how many seconds to call it again."""
        now = self.now()
        if now >= self._read_at:
            self._read()
            self._read_at = now + (_READ_SECONDS if len(self._models) <= _FEW_MODELS else 10 * _READ_SECONDS)
        active = [lane for lane in self.known() if lane.is_active(now)]
        for lane in active:
            lane.cool()
        curious = [lane for lane in active if lane.needs_news(now)]
        if curious:
            self._common.heed_all(curious)
        for lane in active:
            self._let_in(lane)
        return self._terms.lookahead / 2 if active else math.inf

    def _read(self) -> None:
        """Models as they are stored; the lanes of deleted ones go as soon as nothing runs in them."""
        lanes = self.known()
        stored = self._models_store.find(Where(), Page(limit=_MOST_MODELS))
        self.know({model.name: model for model in reversed(stored)})
        if len(stored) == _MOST_MODELS:  # there may be more
            return
        living = {model.id for model in stored}
        for lane in lanes:
            if lane.model.id not in living and not lane.running and not lane.waiting:
                self._lanes.pop(lane.model.id, None)
        for model_id in self._queues.keys() - self._lanes.keys():
            self._queues.pop(model_id, None)

    def _queues_of(self, lane: Lane) -> _Queues:
        return self._queues.setdefault(lane.model.id, _Queues())

    def _let_in(self, lane: Lane) -> None:
        """Whoever waits for a place that is free, and jobs that a claim is worth its while for again; tells the log
        what has become of the breaker."""
        now, queue = self.now(), self._queues_of(lane).for_places
        if queue:
            free = int(min(max(lane.free_places(now), 0), _MOST_ASKED))
            with lane.lock:
                woken = [queue.popleft() for _ in range(min(len(queue), free))]
            for waiting in woken:
                waiting.tell(None)
        if lane.capped and lane.look_again(now) <= 0:
            lane.capped = False
            self.on_room()
        with lane.lock:
            state = lane.breaker.news()
        if state is not None:
            log.warning("breaker_changed", model=lane.model.name, state=str(state))

    async def _know_news(self, lane: Lane) -> None:
        """No call is made on news older than a second: another replica may have been told to pause."""
        if self.now() - lane.heard_at <= _NEWS_SECONDS:
            return
        queues = self._queues_of(lane)
        hearing = queues.hearing
        if hearing is None or hearing.done() or hearing.get_loop() is not asyncio.get_running_loop():
            queues.hearing = hearing = asyncio.ensure_future(self._hop(self._common.heed_all, [lane]))
        await asyncio.shield(hearing)

    async def _placed(self, lane: Lane, estimate: int) -> None:
        """Has a place, or raises ModelPaused: at the latest when it has waited for as long as a job is held."""
        give_up = self.now() + self._terms.hold
        lane.arrive()
        try:
            while True:
                now = self.now()
                denied = lane.place(estimate, now)
                if denied is None:
                    return
                if now >= give_up or now + denied.seconds > give_up:
                    raise self._common.paused(lane, denied)  # noqa: TRY301 - undone with every other way out
                if not await self._asked_for_share(lane, now):
                    await self._freed(lane, min(denied.seconds or give_up - now, give_up - now))
        except BaseException:
            lane.turn_away()
            raise

    async def _started(self, lane: Lane, estimate: int) -> Booked | None:
        """Waits for the instant at which the call may start; None where it was missed, and the place given back."""
        in_time, booked = False, Booked(estimate)
        try:
            start, booked = await self._instant(lane, estimate)
            await asyncio.sleep(max(0.0, start - self.now()))
            self._demand_open(lane)
            in_time = self.now() <= start + self._terms.window.slack / 2
        finally:
            if not in_time:
                lane.dropped()
                self._let_in(lane)
                if booked.number is not None:
                    lane.corrections.ended(booked, 0)
        return booked if in_time else None

    def _demand_open(self, lane: Lane) -> None:
        now = self.now()
        shut = lane.shut_now(now)
        if shut is not None:
            raise self._common.paused(lane, Denied(shut.until - now, shut.reason, shut.text))

    async def _freed(self, lane: Lane, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(loop, loop.create_future())
        queue = self._queues_of(lane).for_places
        with lane.lock:
            queue.append(waiting)
        try:
            async with asyncio.timeout(max(seconds, 0.001)):
                await waiting.future
        except TimeoutError:
            return
        finally:
            with lane.lock:
                if waiting in queue:
                    queue.remove(waiting)

    async def _asked_for_share(self, lane: Lane, now: float) -> bool:
        """Asks for more of a concurrency that replicas share, where this one has all of its part running; False where
        that is of no use, or was done just now."""
        queues = self._queues_of(lane)
        if lane.model.limits.concurrency is None or now - queues.asked_at < self._terms.lookahead / 4:
            return False
        queues.asked_at = now
        await self._hop(self._common.ask, lane, ())
        return True

    async def _instant(self, lane: Lane, estimate: int) -> tuple[float, Booked]:
        """When a call may start. All that ask at the same time share one change of the document."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(loop, loop.create_future(), estimate)
        queues = self._queues_of(lane)
        with lane.lock:
            queues.for_starts.append(waiting)
            first, queues.busy = not queues.busy, True
        if first:
            task = loop.create_task(self._ask(lane, queues))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        start: tuple[float, int | None] = await waiting.future
        return start[0], Booked(estimate, start[1])

    async def _ask(self, lane: Lane, queues: _Queues) -> None:
        """Asks until nobody waits for an instant."""
        batch: list[_Waiting] = []
        try:
            while True:
                await self._gathered(lane)
                with lane.lock:
                    batch = [queues.for_starts.popleft() for _ in range(min(len(queues.for_starts), _MOST_ASKED))]
                    queues.busy = bool(batch)
                if not batch:
                    return
                await self._ask_for(lane, batch)
        finally:
            with lane.lock:
                left = [*batch, *queues.for_starts]
                queues.for_starts.clear()
                queues.busy = False
            for waiting in left:  # none, unless this loop is closed over it
                waiting.tell(self._common.paused(lane, _STOPPED))

    async def _gathered(self, lane: Lane) -> None:
        """Lets calls whose jobs were claimed together ask together: each asking is a write of the storage."""
        await asyncio.sleep(0)
        for _ in range(_GATHERINGS):
            if not lane.expects(self.now()):
                return
            await asyncio.sleep(_GATHERING_SECONDS)

    async def _ask_for(self, lane: Lane, batch: Sequence[_Waiting]) -> None:
        try:
            grant = await self._hop(self._common.ask, lane, [waiting.estimate for waiting in batch])
        except Exception as error:  # noqa: BLE001 - each of those who wait raises it
            for waiting in batch:
                waiting.tell(error)
            return
        for waiting, start, number in zip(batch, grant.starts, grant.bookings or repeat(None), strict=False):
            waiting.tell((start, number))
        for waiting in batch[len(grant.starts) :]:
            waiting.tell(self._common.used_up(lane, grant))

    async def _announced(self, lane: Lane, shut: Shut) -> None:
        """One that cannot be told to the others is found out by them."""
        seconds = round(shut.until - self.now(), 1)
        log.warning("model_shut", model=lane.model.name, reason=str(shut.reason), seconds=seconds)
        try:
            await self._hop(self._common.announce, lane, shut)
        except Exception as error:  # noqa: BLE001 - must not take the place of the error that it is about
            log.warning("pause_not_shared", model=lane.model.name, error_type=type(error).__name__)


def _nothing() -> None:
    """Nobody listens."""
