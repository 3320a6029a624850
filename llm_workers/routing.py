"""Which models are tried for a job, in which order, and which failures send it on to the next: pure functions."""

import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from engine.errors import MetasyncError, UnknownReference
from engine.llm import PermanentProviderError, QuotaExhausted, RateLimited, UnsupportedEndpoint, UnusableAnswer
from engine.records.values import ROUTER, Model, Strategy, Target

_MOST_NAMES = 100
_PASSED_BY = frozenset({"quota", "breaker"})
_BAD_REQUEST = frozenset({400, 413, 414, 415, 422})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a model does here and now.

    Where it is not `open`, no call may be made before `until` (None: until one that runs has ended); `why` is then one
    of requests, tokens, concurrency, rate_limit, quota, breaker. `limited_for` is for how many seconds its vendor has
    been refusing for a rate limit. `window` is how many calls it may have in flight, `latency` their median in seconds,
    None where none was measured.
    """

    open: bool = True
    why: str = ""
    until: datetime | None = None
    in_flight: int = 0
    window: int = 1
    latency: float | None = None
    limited_for: float = 0.0


Standings = Callable[[str], Standing]
"""How the model of a name does."""


def candidates(model: Model, models: Mapping[str, Model], standing: Standings, rng: random.Random) -> tuple[Model, ...]:
    """The real models to try for a job that names `model`, best first, each once; names that nobody has are left out.

    First the model itself, or a router's targets by its strategy; then their fallbacks, each followed in the same way,
    and then the router's own. Those that are not open go last, but a model is waited for, not passed by, as long as it
    is shut for a reason that does not fail over. Of a web of names the first 100 are followed.
    """
    if not model.targets and not model.fallbacks:
        return () if model.sdk == ROUTER else (model,)
    way = _Ways(models, standing, rng).of(model)
    awaited: list[Model] = []
    if not any(standing(each.name).open for each in way.first):
        awaited = [each for each in way.first if not is_passed_by(standing(each.name), patience(model, each))]
    known = _once((*awaited, *way.first, *way.then))
    return tuple(sorted(known, key=lambda each: each not in awaited and not standing(each.name).open))


def patience(named: Model, tried: Model) -> float | None:
    """After how many seconds of a rate limit of `tried` a job that names `named` goes on to the next; None: never."""
    return min((after for after in (named.fallback_after, tried.fallback_after) if after is not None), default=None)


def is_passed_by(standing: Standing, after: float | None) -> bool:
    """Whether others are asked instead of waiting for the model. `after` is the patience with a rate limit."""
    if standing.open:
        return False
    return standing.why in _PASSED_BY or _is_long(standing.limited_for, after)


def fails_over(error: MetasyncError, limited_for: float, after: float | None) -> bool:
    """Whether a call that failed so is made at the next model.

    Yes: what will not get better here, such as a refused key, an unknown deployment or a used up quota, and a rate
    limit that has lasted `limited_for` seconds, if that is as long as `after`. No: requests that are bad everywhere,
    answers that came and are of no use, and what a retry may mend.
    """
    if isinstance(error, RateLimited):
        return _is_long(limited_for, after)
    if isinstance(error, UnknownReference):
        return error.field == "sdk"
    if isinstance(error, UnsupportedEndpoint):
        return True
    if isinstance(error, UnusableAnswer):
        return False
    if isinstance(error, PermanentProviderError):
        return error.status not in _BAD_REQUEST
    return isinstance(error, QuotaExhausted)


def _is_long(limited_for: float, after: float | None) -> bool:
    return after is not None and limited_for >= after


@dataclass(frozen=True, slots=True)
class _Way:
    """What a name comes to: the models meant by it, and those that answer in their place."""

    first: tuple[Model, ...] = ()
    then: tuple[Model, ...] = ()


class _Ways:
    """Follows names, each once: what leads back to itself adds nothing."""

    def __init__(self, models: Mapping[str, Model], standing: Standings, rng: random.Random) -> None:
        self._models = models
        self._standing = standing
        self._rng = rng
        self._found: dict[str, _Way] = {}

    def of(self, model: Model) -> _Way:
        if model.name not in self._found:
            if len(self._found) >= _MOST_NAMES:
                return _Way()
            self._found[model.name] = _Way()
            self._found[model.name] = self._followed(model)
        return self._found[model.name]

    def _followed(self, model: Model) -> _Way:
        chosen = self._chosen(model) if model.sdk == ROUTER else [_Way((model,))]
        fallbacks = [self.of(self._models[name]) for name in model.fallbacks if name in self._models]
        first = [each for way in chosen for each in way.first]
        then = [each for way in chosen for each in way.then]
        return _Way(_once(first), _once((*then, *(each for way in fallbacks for each in (*way.first, *way.then)))))

    def _chosen(self, router: Model) -> list[_Way]:
        """The ways of the targets that lead somewhere, the best first; each counts as its own best model does."""
        targets = [target for target in router.targets if target.model in self._models]
        ways = [(target, self.of(self._models[target.model])) for target in targets]
        leading = [(target, way) for target, way in ways if way.first]
        currency = leading[0][1].first[0].prices.currency if leading else ""
        ranks = [self._rank(router.strategy, target, way.first[0], currency) for target, way in leading]
        return [leading[place][1] for place in sorted(range(len(leading)), key=ranks.__getitem__)]

    def _rank(self, strategy: Strategy, target: Target, best: Model, currency: str) -> tuple[float, ...]:
        """Less is better. Prices in another currency than the first target's cannot be compared and come last."""
        if strategy is Strategy.WEIGHTED:
            # Sorting by these draws without replacement (Efraimidis and Spirakis, Information Processing Letters 97).
            return (self._rng.expovariate(target.weight),)
        if strategy is Strategy.CHEAPEST:
            return (best.prices.currency != currency, _price(best))
        standing = self._standing(best.name)
        if strategy is Strategy.LEAST_BUSY:
            return (standing.in_flight / max(1, standing.window),)
        # One that was never measured gets a call, but no second one before the first has come back.
        untried = standing.latency is None and standing.in_flight == 0
        return (not untried, math.inf if standing.latency is None else standing.latency, standing.in_flight)


def _price(model: Model) -> float:
    return float((model.prices.input + model.prices.output) / model.prices.tokens)


def _once(models: Iterable[Model]) -> tuple[Model, ...]:
    known: dict[str, Model] = {}
    for model in models:
        known.setdefault(model.name, model)
    return tuple(known.values())
