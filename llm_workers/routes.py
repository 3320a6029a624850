"""The way that a job's calls go from model to model."""

import random
from collections.abc import Mapping, Sequence

from engine.errors import MetasyncError, UnknownReference
from engine.jobs.retry import is_transient
from engine.llm import ModelPaused, QuotaExhausted, RateLimited, UnsupportedEndpoint
from engine.records.values import ROUTER, Model
from llm_workers.catalogue import Catalogue
from llm_workers.lanes import Lanes
from llm_workers.routing import Standing, candidates, fails_over, patience


class Routes:
    """For one event loop."""

    def __init__(self, catalogue: Catalogue, lanes: Lanes, rng: random.Random) -> None:
        self._catalogue = catalogue
        self._lanes = lanes
        self._rng = rng

    async def to(self, model: Model) -> Sequence[Model]:
        """The models to try for a job that names `model`, best first. Raises UnknownReference where there is none."""
        if model.sdk != ROUTER and not model.fallbacks:
            return (model,)
        models = await self._catalogue.models()
        self._lanes.know(models)
        way = candidates(model, models, lambda name: self._standing(name, models), self._rng)
        if not way:
            raise UnknownReference("model", f"{model.name}: a router none of whose targets exists any more")
        return way

    def goes_on(self, error: MetasyncError, named: Model, tried: Model) -> bool:
        """Whether a job that names `named` is to go on to the next model after `error` of the `tried` one."""
        if named.sdk == ROUTER and isinstance(error, ModelPaused):
            return True
        standing = self._lanes.standing(tried)
        if isinstance(error, ModelPaused) and error.reason in ("quota", "breaker"):
            return True
        return fails_over(error, standing.limited_for, patience(named, tried))

    def _standing(self, name: str, models: Mapping[str, Model]) -> Standing:
        return self._lanes.standing(models[name]) if name in models else Standing()


def most_hopeful(failures: Sequence[MetasyncError]) -> MetasyncError:
    """The failure that decides what becomes of the job: one that waits before one that is retried, before the rest.

    Last comes one that only says that a model does not take such requests at all.
    """
    return max(failures, key=_hope)


def _hope(error: MetasyncError) -> int:
    if isinstance(error, UnsupportedEndpoint):
        return -1
    if isinstance(error, (RateLimited, QuotaExhausted)):
        return 2
    return int(is_transient(error))
