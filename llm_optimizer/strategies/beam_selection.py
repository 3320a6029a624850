"""Which prompts of a field make the next beam: by successive rejects, or by upper confidence bounds.

Source: Pryzant et al. (arXiv 2305.03495), whose code takes the logarithm of the round's number for the bound, which is
nothing in the first round; here it is that of all pulls, as the bound is meant.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from llm_optimizer.strategies import candidates, pool
from llm_optimizer.strategies.interface import Item, State
from llm_optimizer.strategies.phases import Answers, Phase

FIRST_ROUND = 8

PULL = 4
"""Examples that a prompt is tried on at a time."""
PULLS_EACH = 12
"""Of a field, on average: what successive rejects take of a beam of four with twelve children."""

Pull = list[Any]
"""Who is tried, from which example, up to which: JSON, as all of a state."""

Next = Callable[[State, list[str]], None]
"""Opens the round that starts from these, the best first."""


class Rejects(Phase):
    """All on eight examples, then the better half on twice as many, until the beam is left."""

    def __init__(self, width: int, then: Next) -> None:
        self._width = width
        self._then = then

    def plan(self, state: State) -> list[Item]:
        order, field = self._order(state), state.scratch["field"]
        return [item for example in order for one in field for item in pool.missing(state, one, [example])]

    def take(self, state: State, _answers: Answers, /) -> None:
        if self.plan(state):
            return
        order, field = self._order(state), state.scratch["field"]
        all_seen = len(order) == len(state.setup.validation)
        keep = self._width if all_seen else max(self._width, len(field) // 2)
        left = _kept(state, field, order, keep)
        state.scratch["field"] = left
        state.scratch["sight"] *= 2
        if len(left) <= self._width:
            self._then(state, left)

    def _order(self, state: State) -> tuple[str, ...]:
        return state.setup.validation[: state.scratch["sight"]]


class Bounds(Phase):
    """Four examples for all, then four more at a time for those that may be the best, until the pulls are used.

    `wave` holds who is tried next.
    """

    def __init__(self, width: int, exploration: float, then: Next) -> None:
        self._width = width
        self._exploration = exploration
        self._then = then

    def plan(self, state: State) -> list[Item]:
        order = state.setup.validation
        return [item for one, _, until in self._wave(state) for item in pool.missing(state, one, order[:until])]

    def take(self, state: State, _answers: Answers, /) -> None:
        if self.plan(state):
            return
        field, order = state.scratch["field"], state.setup.validation
        pulls = state.scratch.get("pulls", 0) + sum(until - since for _, since, until in self._wave(state))
        unfinished = [one for one in field if pulled(state, one) < len(order)]
        if not unfinished or pulls >= PULLS_EACH * len(field):
            self._then(state, _kept(state, field, order, self._width))
            return
        total = sum(pulled(state, one) for one in field)
        ranked = sorted(unfinished, key=lambda one: -self._bound(state, one, total))
        state.scratch["pulls"] = pulls
        state.scratch["wave"] = [self._more(state, one, pulled(state, one) + PULL) for one in ranked[: self._width]]

    def _wave(self, state: State) -> list[Pull]:
        wave: list[Pull] | None = state.scratch.get("wave")
        return [self._more(state, one, PULL) for one in state.scratch["field"]] if wave is None else wave

    def _more(self, state: State, one: str, until: int) -> Pull:
        since = pulled(state, one)
        return [one, since, max(since, min(until, len(state.setup.validation)))]

    def _bound(self, state: State, one: str, total: int) -> float:
        mean = pool.mean(state, one) or 0.0
        return mean + self._exploration * math.sqrt(2 * math.log(total) / pulled(state, one))


def pulled(state: State, one: str) -> int:
    """On how many validation examples the prompt was tried."""
    return len(state.setup.validation) - len(pool.missing(state, one, state.setup.validation))


def _kept(state: State, field: Sequence[str], order: Sequence[str], keep: int) -> list[str]:
    """The best `keep` of the field, the best first; the others are out."""
    ranked = sorted(field, key=lambda one: -(pool.mean(state, one, order) or 0.0))
    for place, one in enumerate(ranked[keep:], keep + 1):
        candidates.reject(state, one, f"{pool.RACE}: place {place} of {len(ranked)}")
    return ranked[:keep]
