"""What there is to say of models now: from this replica's lanes, and from what all replicas share."""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from engine.jobs.queue import Page
from engine.llm import JsonObject
from engine.records.control import Latencies, ModelState, Pause
from engine.records.store import Storage, Where
from engine.records.values import ROUTER, Model
from llm_workers.capacity import bookings
from llm_workers.common_capacity import key_of
from llm_workers.lane import Lane
from llm_workers.lane_terms import LaneTerms, Reason
from llm_workers.lanes import Lanes
from llm_workers.routing import Standing, candidates
from utilities.clock import Clock

_MOST_MODELS = 10_000


class LaneStates:
    """Implements engine.records.control.ModelStates. `replica` names this process."""

    def __init__(
        self,
        lanes: Lanes,
        storage: Storage,
        *,
        clock: Clock,
        replica: str,
        terms: LaneTerms | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._lanes = lanes
        self._storage = storage
        self._clock = clock
        self._replica = replica
        self._terms = terms or LaneTerms()
        self._rng = rng or random.Random()

    def of(self, models: Sequence[Model]) -> list[ModelState]:
        known = self._all() if any(model.targets or model.fallbacks for model in models) else {}
        concerned = {model.id: model for model in (*models, *known.values())}
        documents = self._storage.shared.get_many([key_of(model) for model in concerned.values()])
        now = self._clock.now()
        alone = {each.id: self._alone(each, documents.get(key_of(each), {}), now) for each in concerned.values()}
        return [self._with_way(model, known, alone) for model in models]

    def _all(self) -> Mapping[str, Model]:
        found = self._storage.models.find(Where(), Page(limit=_MOST_MODELS))
        return {model.name: model for model in reversed(found)}

    def _alone(self, model: Model, document: JsonObject, now: datetime) -> ModelState:
        """The model by itself, wherever else its jobs may go."""
        lane = self._lanes.of(model)
        booked = bookings(document, model.limits, now.timestamp(), self._terms.window)
        pauses = (*self._shared_pauses(model, document), *self._lane_pauses(lane, now), *self._used_up(model, booked))
        until = {kind: _later(free_at, now) for kind, (free_at, _) in booked.items()}
        state = ModelState(
            replica=self._replica,
            pause=_longest(pauses, now),
            window=model.limits.concurrency,
            requests_booked_until=until.get("requests"),
            tokens_booked_until=until.get("tokens"),
        )
        return state if lane is None else self._in_lane(state, lane)

    def _in_lane(self, state: ModelState, lane: Lane) -> ModelState:
        return replace(
            state,
            in_flight=lane.running,
            waiting=lane.waiting,
            window=lane.bound(),
            breaker=str(lane.breaker.state),
            error_rate=lane.error_rate(self._lanes.now()),
            latencies=_latencies(lane),
        )

    def _shared_pauses(self, model: Model, document: JsonObject) -> Iterable[Pause]:
        """What some replica has announced."""
        shut = document.get("shut")
        if shut is not None and shut["revision"] == model.revision:
            until = datetime.fromtimestamp(shut["until"], UTC)
            yield Pause(model=model.name, reason=shut["reason"], until=until, text=shut["text"])

    def _lane_pauses(self, lane: Lane | None, now: datetime) -> Iterable[Pause]:
        if lane is None:
            return
        steady = self._lanes.now()
        shut = lane.shut_now(steady)
        if shut is not None:
            until = now + timedelta(seconds=shut.until - steady)
            yield Pause(model=lane.model.name, reason=str(shut.reason), until=until, text=shut.text)
        wait = lane.announced_wait(steady)
        if wait > self._terms.hold:
            until = now + timedelta(seconds=wait)
            text = "the provider says that its limit is nearly used up"
            yield Pause(model=lane.model.name, reason=str(Reason.REQUESTS), until=until, text=text)

    def _used_up(self, model: Model, booked: Mapping[str, tuple[float, float]]) -> Iterable[Pause]:
        """Limits of which the next call would be held back for longer than a claimed job waits."""
        limits = {"requests": model.limits.requests_per_minute, "tokens": model.limits.tokens_per_minute}
        soon = self._clock.now().timestamp() + self._terms.hold
        for kind, (_, start) in booked.items():
            if start > soon:
                text = f"its limit of {limits[kind]} {kind} a minute is used up"
                yield Pause(model=model.name, reason=kind, until=datetime.fromtimestamp(start, UTC), text=text)

    def _with_way(self, model: Model, known: Mapping[str, Model], alone: Mapping[str, ModelState]) -> ModelState:
        """Adds where a job that names the model goes, and what it waits for if that is nowhere."""

        def standing(name: str) -> Standing:
            return self._standing(known[name], alone[known[name].id].pause) if name in known else Standing()

        way = candidates(model, known, standing, self._rng)
        state = alone[model.id]
        first = alone[way[0].id].pause if way else None
        return replace(
            state,
            pause=first if model.sdk == ROUTER else state.pause,
            would_try=tuple(each.name for each in way),
            job_waits_for=first,
        )

    def _standing(self, model: Model, pause: Pause | None) -> Standing:
        standing = self._lanes.standing(model)
        return standing if pause is None else replace(standing, open=False, why=pause.reason, until=pause.until)


def _longest(pauses: Iterable[Pause], now: datetime) -> Pause | None:
    return max((pause for pause in pauses if pause.until > now), key=lambda pause: pause.until, default=None)


def _later(instant: float, now: datetime) -> datetime | None:
    """The instant, None where it has passed."""
    return datetime.fromtimestamp(instant, UTC) if instant > now.timestamp() else None


def _latencies(lane: Lane) -> Latencies | None:
    """By nearest rank."""
    seconds = sorted(lane.latencies)
    if not seconds:
        return None
    p50, p95, p99 = (seconds[math.ceil(share * len(seconds)) - 1] for share in (0.50, 0.95, 0.99))
    return Latencies(p50=p50, p95=p95, p99=p99)
