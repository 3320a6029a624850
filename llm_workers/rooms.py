"""What is worth claiming, by what lanes have room for and wallets have money for."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from engine.jobs.job import Job
from engine.records.values import ROUTER, Model
from llm_workers.lane import Lane
from llm_workers.lanes import Lanes
from llm_workers.routing import is_passed_by
from llm_workers.wallets import Wallets

_SHORTEST_WAIT = 0.005
_MOST_STEPS = 100


class ModelRooms:
    """Implements engine.jobs.rooms.Rooms."""

    def __init__(self, lanes: Lanes, wallets: Wallets) -> None:
        self._lanes = lanes
        self._wallets = wallets

    def caps(self) -> Mapping[str, int]:
        now, models = self._lanes.now(), self._lanes.models()
        rooms = {name: self._room(name, models, now, set()) for name in models}
        return {name: int(room) for name, room in rooms.items() if room < math.inf}

    def claimed(self, jobs: Sequence[Job], caps: Mapping[str, int]) -> None:
        """A lane whose jobs were held back is watched for room."""
        if not caps:
            return
        now, models = self._lanes.now(), self._lanes.models()
        counts = Counter(job.model for job in jobs)
        for name, cap in caps.items():
            for lane in self._behind(name, models, set()):
                lane.capped = lane.capped or counts[name] >= cap
                lane.promise(counts[name], now)

    def look_again(self) -> float:
        now = self._lanes.now()
        wait = min((lane.look_again(now) for lane in self._lanes.known() if lane.capped), default=math.inf)
        if wait <= 0:
            for lane in self._lanes.known():
                lane.capped = lane.capped and lane.look_again(now) > 0
        return max(wait, _SHORTEST_WAIT)

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

    def _behind(self, name: str, models: Mapping[str, Model], seen: set[str]) -> Iterator[Lane]:
        model = models.get(name)
        if model is None or name in seen:
            return
        seen.add(name)
        lane = self._lanes.of(model)
        if lane is not None:
            yield lane
        for other in (*(target.model for target in model.targets), *model.fallbacks):
            yield from self._behind(other, models, seen)
