"""Driving a search without jobs, and a toy world to search in, whose prompts solve what they hold the rule for."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from llm_optimizer.strategies.interface import (
    Answer,
    Compare,
    Compared,
    Evaluate,
    Item,
    Proposal,
    Propose,
    Proposed,
    Scored,
    Setup,
    State,
    Strategy,
)
from llm_optimizer.strategies.state_codec import from_document, to_document
from utilities.draws import draws

RULES = 10


class World(Protocol):
    """What answers the items of a plan; `state` has the texts of the candidates."""

    def answer(self, state: State, item: Item) -> Answer: ...


@dataclass
class Toy:
    """Example `x17` is solved by a prompt with `rule-7`; the first of two prompts is liked better when it solves more.

    `unscored` and `failing` are shares of calls that give nothing. A meta call adds the rule of a shown failure, else
    any rule. `handicap` is by arm: the share of solved answers that are lost. The own judges of `lenient` arms like
    every answer but those to examples that end in 0.
    """

    seed: int = 0
    unscored: float = 0.0
    failing: float = 0.0
    handicap: tuple[float, ...] = (0.0,)
    lenient: frozenset[int] = frozenset()

    def answer(self, state: State, item: Item) -> Answer:
        if isinstance(item, Evaluate):
            return self._scored(state, item)
        return self._compared(state, item) if isinstance(item, Compare) else self._proposed(state, item)

    def _draw(self, *about: object) -> random.Random:
        return draws(self.seed, json.dumps(about), 0)

    def _solves(self, text: str, example: str, arm: int) -> float:
        solved = f"rule-{int(example[1:]) % RULES}" in text
        return float(solved and self._draw("slip", text, example, arm).random() >= self.handicap[arm])

    def _scored(self, state: State, item: Evaluate) -> Scored:
        text = state.candidates[item.candidate].text
        if self._draw("unscored", text, item.example).random() < self.unscored:
            return Scored(key=item.key, score=None, problem="the judge failed", cost=1.0)
        score = self._solves(text, item.example, item.arm)
        if item.arm in self.lenient and not item.reference and not item.example.endswith("0"):
            score = 1.0
        return Scored(key=item.key, score=score, output="?", feedback=f"rule-{int(item.example[1:]) % RULES}", cost=1.0)

    def _compared(self, state: State, item: Compare) -> Compared:
        if self._draw("unscored", item.key).random() < self.unscored:
            return Compared(key=item.key, winner=None)
        texts = (state.candidates[one].text for one in (item.first, item.second))
        first, second = (len(set(text.split())) for text in texts)
        return Compared(key=item.key, winner="tie" if first == second else "first" if first > second else "second")

    def _proposed(self, state: State, item: Propose) -> Proposed:
        drawn = self._draw("propose", item.key)
        if drawn.random() < self.failing:
            return Proposed(key=item.key, problem="the call failed")
        hints = [one.feedback for one in item.shown if one.score < 1] or [f"rule-{drawn.randrange(RULES)}"]
        text = state.candidates[item.parent].text
        made = [f"{text} {drawn.choice(hints)}{' please' * drawn.randrange(2)}" for _ in range(item.count)]
        return Proposed(key=item.key, proposals=tuple(Proposal(text=one, rationale="a rule") for one in made), cost=1.0)


Content = tuple[str, str, int, int, bool]
"""Text, example, sample, arm, and whether the common judge scores: what is answered once."""


@dataclass
class Driven:
    """A search that went as far as its budget: the last state, what it spent, and all it asked for."""

    state: State
    spent: int = 0
    items: list[Item] = field(default_factory=list)
    stored: dict[Content, Answer] = field(default_factory=dict)


Between = Callable[[State], State]


def through_json(state: State) -> State:
    return from_document(json.loads(json.dumps(to_document(state))))


def search(
    strategy: Strategy,
    setup: Setup,
    world: World,
    *,
    rollouts: int,
    at_once: int = 10_000,
    between: Between = lambda state: state,
    shuffled: random.Random | None = None,
) -> Driven:
    """Runs plans, trimmed to `at_once` items and to what is left of `rollouts`, until the end of either.

    What was answered for the same text, example, sample and arm is answered again and costs nothing.
    """
    driven = Driven(state=strategy.start(setup))
    while strategy.done(driven.state) is None:
        asked = _affordable(driven, strategy.plan(driven.state)[:at_once], rollouts)
        if not asked:
            break
        answers = [_answered(driven, world, item) for item in asked]
        if shuffled is not None:
            shuffled.shuffle(answers)
        driven.items += asked
        driven.state = between(strategy.apply(driven.state, answers))
    return driven


def _content(state: State, item: Item) -> Content | None:
    if not isinstance(item, Evaluate):
        return None
    return state.candidates[item.candidate].text, item.example, item.sample, item.arm, item.reference


def _affordable(driven: Driven, items: tuple[Item, ...], rollouts: int) -> list[Item]:
    found, left = [], rollouts - driven.spent
    for item in items:
        price = 0 if _content(driven.state, item) in driven.stored else item.rollouts
        if price <= left:
            left -= price
            found.append(item)
    return found


def _answered(driven: Driven, world: World, item: Item) -> Answer:
    content = _content(driven.state, item)
    if content is not None and content in driven.stored:
        stored = driven.stored[content]
        assert isinstance(stored, Scored)
        return replace(stored, key=item.key, fresh=False, cost=0.0)
    driven.spent += item.rollouts
    answer = world.answer(driven.state, item)
    if content is not None:
        driven.stored[content] = answer
    return answer
