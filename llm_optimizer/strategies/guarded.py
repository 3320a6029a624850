"""An outside strategy behind the interface: whatever it raises or returns ends its run with a reason, and nothing else.

What it returns is checked before anybody uses it, and its states go through JSON at once: what would differ after a
resume differs from the start. A method that never returns holds one of the driver's threads; nothing here mends that.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, get_args

from engine.errors import InvalidField
from llm_optimizer.strategies.interface import (
    Answer,
    Best,
    Compare,
    Evaluate,
    FinishReason,
    Item,
    Propose,
    Setup,
    State,
    Strategy,
)
from llm_optimizer.strategies.state_codec import copied, from_document, to_document

MOST_ITEMS = 10_000
"""Of one plan: an endless one would never be left."""

_LONGEST_REASON = 300


class Guarded:
    """A Strategy. All of it raises InvalidField for a plug-in that is not as the interface says."""

    def __init__(self, name: str, make: Callable[[], Strategy]) -> None:
        self._name = name
        with self._guard("__init__"):
            self._inner = make()

    def start(self, setup: Setup) -> State:
        with self._guard("start"):
            return _stored(self._inner.start(setup))

    def plan(self, state: State) -> tuple[Item, ...]:
        with self._guard("plan"):
            items = tuple(islice(self._inner.plan(state), MOST_ITEMS + 1))
            _check_plan(items, state)
            return items

    def apply(self, state: State, answers: Sequence[Answer]) -> State:
        with self._guard("apply"):
            new = _stored(self._inner.apply(copied(state), answers))
        if new == state and {item.key for item in self.plan(state)} <= {answer.key for answer in answers}:
            raise self._refusal("apply", "nothing changed though all was answered: it would ask the same for ever")
        return new

    def done(self, state: State) -> FinishReason | None:
        with self._guard("done"):
            reason = self._inner.done(state)
            _demand(reason is None or isinstance(reason, FinishReason), f"{reason!r} is not a FinishReason")
            return reason

    def best(self, state: State) -> Best:
        with self._guard("best"):
            best = self._inner.best(state)
            _demand(isinstance(best, Best), f"{best!r} is not a Best")
            _demand(best.candidate in state.candidates, f"there is no candidate {best.candidate!r}")
            _demand(best.arm in range(state.setup.arms), f"there is no combination {best.arm!r}")
            _demand(best.mean is None or math.isfinite(best.mean), f"{best.mean!r} is not a mean")
            return best

    @contextmanager
    def _guard(self, method: str) -> Iterator[None]:
        try:
            yield
        except InvalidField:
            raise
        except (Exception, SystemExit) as error:
            raise self._refusal(method, f"{type(error).__name__}: {error}") from error

    def _refusal(self, method: str, reason: str) -> InvalidField:
        return InvalidField("strategy", f"the plug-in {self._name} failed in {method}: {reason[:_LONGEST_REASON]}")


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _stored(state: State) -> State:
    """As it will be when it is read again."""
    _demand(isinstance(state, State), f"{type(state).__name__} is not a State")
    for one in state.candidates.values():
        _demand(isinstance(one.text, str), f"candidate {one.id!r} has no text")
    return from_document(json.loads(json.dumps(to_document(state), allow_nan=False)))


def _check_plan(items: Sequence[Any], state: State) -> None:
    _demand(len(items) <= MOST_ITEMS, f"more than {MOST_ITEMS} items")
    examples = {*state.setup.feedback, *state.setup.validation}
    for item in items:
        _demand(isinstance(item, get_args(Item)), f"{item!r} is not an item")
        named, shown = _named(item)
        _demand(named <= set(state.candidates), f"there is no candidate {_first(named - set(state.candidates))}")
        _demand(shown <= examples, f"there is no example {_first(shown - examples)}")
        _demand(item.arm in range(state.setup.arms), f"there is no combination {item.arm!r}")
    _demand(len({item.key for item in items}) == len(items), "two items have the same key")


def _first(names: set[str]) -> str:
    return min(map(repr, names), default="")


def _named(item: Item) -> tuple[set[str], set[str]]:
    """The candidates and the examples that it is about."""
    if isinstance(item, Evaluate):
        _demand(item.sample >= 0 and item.judgements >= 1, "a sample or a number of judgements is too low")
        return {item.candidate}, {item.example}
    if isinstance(item, Compare):
        return {item.first, item.second}, {item.example}
    return _named_by_proposal(item)


def _named_by_proposal(item: Propose) -> tuple[set[str], set[str]]:
    _demand(item.count >= 1, "a proposal of no texts")
    seconds = set() if item.second is None else {item.second}
    candidates = {item.parent, *seconds, *(one for one, _ in item.history), *item.rejected}
    return candidates, {*(one.example for one in item.shown), *item.golds, *item.wins[0], *item.wins[1]}
