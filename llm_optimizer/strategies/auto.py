"""The default: the strategy that fits what there is to spend and to learn from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llm_optimizer.strategies.interface import Answer, Best, FinishReason, Item, Setup, State
from llm_optimizer.strategies.parameters import read
from llm_optimizer.strategies.registry import built_in

SMALL = 150
"""Rollouts below which there is no room for more than plain refinement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoParameters:
    """None: which one is chosen decides what there would be."""


class Auto:
    """Answers for the strategy that it chose, whose name the state has from its start on."""

    name = "auto"

    def start(self, setup: Setup) -> State:
        read(AutoParameters, setup.parameters)
        chosen = choose(setup)
        if setup.arms > 1:
            return built_in("combos").start(replace(setup, parameters={"strategy": chosen}))
        return built_in(chosen).start(setup)

    def plan(self, state: State) -> tuple[Item, ...]:
        return built_in(state.strategy).plan(state)

    def apply(self, state: State, answers: Sequence[Answer]) -> State:
        return built_in(state.strategy).apply(state, answers)

    def done(self, state: State) -> FinishReason | None:
        return built_in(state.strategy).done(state)

    def best(self, state: State) -> Best:
        return built_in(state.strategy).best(state)


def choose(setup: Setup) -> str:
    """The name of the strategy for this setup, for one combination of models."""
    if setup.pairwise_only:
        return "duel"
    return "refine" if setup.rollouts / setup.arms < SMALL else "reflect"
