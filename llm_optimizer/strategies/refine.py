"""Iterative refinement: the feedback on a prompt's answers goes to a meta-model, whose text is the next prompt.

`best` (the default) goes on from the best prompt and takes a text only when it does better; `last` goes on from the
last text, whatever it is worth, and its result is the last suggestion.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from llm_optimizer.strategies import candidates, pool
from llm_optimizer.strategies.climb import Terms, climbing
from llm_optimizer.strategies.interface import Best, Evaluate, FinishReason, Item, ProposalKind, Propose, Setup, State
from llm_optimizer.strategies.minibatch import minibatch
from llm_optimizer.strategies.parameters import choice, count, read
from llm_optimizer.strategies.phases import Answers, Phase, PhasedStrategy, opening, proposals
from llm_optimizer.strategies.trial import barren, show, shown

BATCH_OF_BEST = 6
BATCH_OF_LAST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineParameters:
    """`minibatch` 0 is six for `best` and eight for `last`; `patience` 0 is for ever, and is for `best` alone."""

    select: str = choice("best", "last")
    minibatch: int = count(0, 0, 50)
    max_iterations: int = count(20, 1, 10_000)
    patience: int = count(8, 0, 10_000)


class Refine(PhasedStrategy):
    name = "refine"

    def start(self, setup: Setup) -> State:
        given = read(RefineParameters, setup.parameters)
        if given.select == "best":
            return opening(self.name, setup, "baseline")
        state = opening(self.name, setup, "rollouts")
        _open(state, pool.SEED, given)
        return state

    def phases(self, state: State) -> Mapping[str, Phase]:
        given = read(RefineParameters, state.setup.parameters)
        if given.select == "last":
            return {"rollouts": Rollouts(), "suggest": Suggest(given)}
        size = given.minibatch or BATCH_OF_BEST
        return climbing(Terms(minibatch=size, max_iterations=given.max_iterations, patience=given.patience))

    def best(self, state: State) -> Best:
        if read(RefineParameters, state.setup.parameters).select == "best":
            return pool.best(state)
        last = state.scratch["parent"]
        return Best(candidate=last, mean=pool.mean(state, last))


class Rollouts(Phase):
    """The last prompt on a minibatch."""

    def plan(self, state: State) -> list[Item]:
        left = [example for example in state.scratch["batch"] if example not in state.scratch["shown"]]
        return [Evaluate(candidate=state.scratch["parent"], example=example) for example in left]

    def take(self, state: State, answers: Answers, /) -> None:
        show(state, answers)
        if not self.plan(state):
            state.phase = "suggest"


class Suggest(Phase):
    """The meta call, whose text is the next prompt unless it cannot be one."""

    def __init__(self, given: RefineParameters) -> None:
        self._given = given

    def plan(self, state: State) -> list[Item]:
        rows, parent = shown(state.scratch["shown"]), state.scratch["parent"]
        return [Propose(serial=state.step, kind=ProposalKind.EDIT, parent=parent, shown=rows)]

    def take(self, state: State, answers: Answers, /) -> None:
        found = proposals(answers, f"propose/0/{state.step}")
        if found is None:
            return
        parent = state.scratch["parent"]
        child = candidates.add(state, found[0], (parent,), ProposalKind.EDIT.value) if found else None
        if child is None or child.rejected is not None:
            barren(state, failed=child is None)
        else:
            state.counters["barren"] = 0
            parent = child.id
        _open(state, parent, self._given)


def _open(state: State, parent: str, given: RefineParameters) -> None:
    """The iteration that starts from `parent`, or the end."""
    size = given.minibatch or BATCH_OF_LAST
    batch = minibatch(state.setup.seed, state.setup.feedback, size, state.step)
    state.scratch = {"parent": parent, "batch": list(batch), "shown": {}}
    if state.step >= given.max_iterations:
        state.finish = state.finish or FinishReason.ITERATIONS
    else:
        state.step += 1
        state.phase = "rollouts"
