"""What is worth claiming, by what lanes have room for and wallets have money for."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from engine.jobs.job import Job
from engine.records.values import ROUTER, Model
from llm_workers.lane import Lane
from llm_workers.lanes import Lanes
from llm_workers.routing import is_passed_by
from llm_workers.wallets import Wallets

_SHORTEST_WAIT = 0.005
_ARRIVAL_SECONDS = 0.05
_MOST_STEPS = 100


class ModelRooms:
    """Implements engine.jobs.rooms.Rooms."""

    def __init__(self, lanes: Lanes, wallets: Wallets) -> None:
        self._lanes = lanes
        self._wallets = wallets

    def caps(self) -> Mapping[str, int]:
        """A router that leads nowhere has none: its jobs are to be claimed, and to fail with the reason."""
        now, models = self._lanes.now(), self._lanes.models()
        bounded = [name for name, model in models.items() if model.sdk == ROUTER or self._lanes.of(model) is not None]
        rooms = {name: self._room(name, models, now, set()) for name in bounded}
        leading = (name for name, room in rooms.items() if room >= 1 or self._leads(name, models))
        return {name: int(rooms[name]) for name in leading if rooms[name] < math.inf}

    def claimed(self, jobs: Sequence[Job], caps: Mapping[str, int]) -> None:
        """A lane whose jobs were held back is watched for room; one that they come to expects them."""
        if not caps:
            return
        now, models = self._lanes.now(), self._lanes.models()
        counts = Counter(job.model for job in jobs)
        for name, cap in caps.items():
            lanes = self._lanes_of(self._reached(name, models, set(), at=now))
            for lane in lanes:
                lane.capped = lane.capped or counts[name] >= cap
            taking = [lane for lane in lanes if lane.shut_now(now) is None]
            for lane in taking:
                lane.promise(math.ceil(counts[name] / len(taking)), now)

    def look_again(self) -> float:
        now = self._lanes.now()
        waits = [(lane, self._wait(lane, now)) for lane in self._lanes.known() if lane.capped]
        for lane, wait in waits:
            lane.capped = wait > 0
        return max(min((wait for _, wait in waits), default=math.inf), _SHORTEST_WAIT)

    def _wait(self, lane: Lane, now: float) -> float:
        """A lane that expects as many jobs as it has room for is looked at again once some may have come."""
        wait = lane.look_again(now)
        return wait if wait > 0 or lane.room(now) >= 1 else _ARRIVAL_SECONDS

    def shut_clients(self) -> frozenset[str]:
        return self._wallets.shut_clients()

    def shut_worker(self, worker_id: str) -> bool:
        return self._wallets.shut_worker(worker_id)

    def _room(self, name: str, models: Mapping[str, Model], now: float, seen: set[str]) -> float:
        """How many jobs that name it are worth claiming: a router has its targets', a model that is passed by has its
        fallbacks'."""
        model = models.get(name)
        if model is None or name in seen or len(seen) > _MOST_STEPS:
            return 0.0
        seen.add(name)
        if model.sdk == ROUTER:
            own = sum(self._room(target.model, models, now, seen) for target in model.targets)
        else:
            lane = self._lanes.of(model)
            own = math.inf if lane is None else lane.room(now)
        if own >= 1 or not (model.sdk == ROUTER or is_passed_by(self._lanes.standing(model), model.fallback_after)):
            return own
        return own + sum(self._room(fallback, models, now, seen) for fallback in model.fallbacks)

    def _leads(self, name: str, models: Mapping[str, Model]) -> bool:
        return any(model.sdk != ROUTER for model in self._reached(name, models, set()))

    def _reached(
        self, name: str, models: Mapping[str, Model], seen: set[str], *, at: float | None = None
    ) -> Iterator[Model]:
        """The models that jobs naming it may come to; those that they come to as models do at that instant."""
        model = models.get(name)
        if model is None or name in seen:
            return
        seen.add(name)
        yield model
        targets = [target.model for target in model.targets]
        everywhere = at is None or self._falls_back(model, models, at)
        for other in (*targets, *model.fallbacks) if everywhere else targets:
            yield from self._reached(other, models, seen, at=at)

    def _falls_back(self, model: Model, models: Mapping[str, Model], now: float) -> bool:
        """Whether jobs that name it are claimed for its fallbacks (see _room)."""
        if model.sdk != ROUTER:
            return is_passed_by(self._lanes.standing(model), model.fallback_after)
        return all(self._room(target.model, models, now, set()) < 1 for target in model.targets)

    def _lanes_of(self, models: Iterable[Model]) -> list[Lane]:
        found = (self._lanes.of(model) for model in models)
        return [lane for lane in found if lane is not None]
