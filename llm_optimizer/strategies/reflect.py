"""Reflective evolution: a meta-model reads answers with their feedback, edits their prompt, and the edit has to prove
itself on the same minibatch and then, block by block, on the validation examples.

Source: GEPA (arXiv 2507.19457) and the package gepa 0.1.4, with the parent and the minibatch size that did better than
its defaults.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from llm_optimizer.strategies.climb import Terms, climbing
from llm_optimizer.strategies.interface import Setup, State
from llm_optimizer.strategies.parameters import choice, count, read, switch
from llm_optimizer.strategies.phases import Phase, PhasedStrategy, opening


@dataclass(frozen=True, slots=True, kw_only=True)
class ReflectParameters:
    """`parents` says which candidate is edited, `golds` when examples with their expected answers are shown, `width`
    how many texts are made of a parent at a time: the one that does best on the minibatch is validated.
    """

    parents: str = choice("best", "pareto", "mix")
    minibatch: int = count(6, 1, 50)
    max_iterations: int = count(500, 1, 10_000)
    patience: int = count(0, 0, 10_000)
    history: bool = switch(True)
    golds: str = choice("auto", "always", "never")
    merge: bool = switch(True)
    width: int = count(1, 1, 16)


class Reflect(PhasedStrategy):
    name = "reflect"

    def start(self, setup: Setup) -> State:
        read(ReflectParameters, setup.parameters)
        return opening(self.name, setup, "baseline")

    def phases(self, state: State) -> Mapping[str, Phase]:
        given = read(ReflectParameters, state.setup.parameters)
        return climbing(
            Terms(
                minibatch=given.minibatch,
                max_iterations=given.max_iterations,
                patience=given.patience,
                parents=given.parents,
                history=given.history,
                golds=given.golds,
                merge=given.merge,
                width=given.width,
            )
        )
