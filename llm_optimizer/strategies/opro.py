"""Trajectory: the meta-model sees the best prompts so far with their scores, and some examples with their answers.

Source: Yang et al., "Large Language Models as Optimizers" (arXiv 2309.03409) and its published code. Good where there
is little feedback to learn from. The best of many means over few examples promises too much: the holdout has to decide.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from llm_optimizer.strategies import candidates, pool
from llm_optimizer.strategies.interface import FinishReason, Item, ProposalKind, Propose, Setup, State
from llm_optimizer.strategies.minibatch import some
from llm_optimizer.strategies.parameters import count as whole
from llm_optimizer.strategies.parameters import read, share
from llm_optimizer.strategies.phases import Answers, Phase, PhasedStrategy, count, opening, proposals
from llm_optimizer.strategies.trial import Baseline, barren

GOLDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class OproParameters:
    """`threshold` is the share of the best mean below which a prompt is not shown; `patience` counts steps."""

    proposals: int = whole(4, 1, 16)
    history: int = whole(20, 1, 50)
    steps: int = whole(50, 1, 10_000)
    patience: int = whole(6, 0, 10_000)
    threshold: float = share(0.3)


class Opro(PhasedStrategy):
    name = "opro"

    def start(self, setup: Setup) -> State:
        read(OproParameters, setup.parameters)
        return opening(self.name, setup, "baseline")

    def phases(self, state: State) -> Mapping[str, Phase]:
        given = read(OproParameters, state.setup.parameters)
        return {"baseline": Baseline(_Steps(given).open), "ask": AskForMany(given), "score": Score(given)}


class _Steps:
    """What happens between two steps."""

    def __init__(self, given: OproParameters) -> None:
        self._given = given

    def open(self, state: State) -> None:
        if state.step >= self._given.steps:
            state.finish = state.finish or FinishReason.ITERATIONS
        if state.finish is None:
            state.step += 1
            state.phase = "ask"
            state.scratch = {"children": [], "before": pool.best(state).mean}

    def close(self, state: State) -> None:
        before, after = state.scratch["before"], pool.best(state).mean
        if after is not None and (before is None or after > before):
            state.counters["idle"] = 0
        elif count(state, "idle") >= self._given.patience > 0:
            state.finish = state.finish or FinishReason.NO_IMPROVEMENT
        self.open(state)


class AskForMany(Phase):
    """The meta call."""

    def __init__(self, given: OproParameters) -> None:
        self._given = given

    def plan(self, state: State) -> list[Item]:
        top = pool.best(state)
        floor = self._given.threshold * (top.mean or 0.0)
        return [
            Propose(
                serial=state.step,
                kind=ProposalKind.TRAJECTORY,
                parent=top.candidate,
                score=top.mean,
                count=self._given.proposals,
                golds=some(state.setup.seed, "golds", state.step, state.setup.golds, GOLDS),
                history=tuple(row for row in pool.ranked(state, self._given.history) if row[1] >= floor),
            )
        ]

    def take(self, state: State, answers: Answers, /) -> None:
        (asked,) = self.plan(state)
        found = proposals(answers, asked.key)
        if found is None:
            return
        parent = pool.best(state).candidate
        made = [candidates.add(state, one, (parent,), ProposalKind.TRAJECTORY.value) for one in found]
        state.scratch["children"] = [child.id for child in made if child.rejected is None]
        if state.scratch["children"]:
            state.counters["barren"] = 0
            state.phase = "score"
        else:
            barren(state, failed=not found)
            _Steps(self._given).close(state)


class Score(Phase):
    """All children of the step on all validation examples, example by example, so that a trimmed plan is fair."""

    def __init__(self, given: OproParameters) -> None:
        self._given = given

    def plan(self, state: State) -> list[Item]:
        children, order = state.scratch["children"], state.setup.validation
        return [item for example in order for child in children for item in pool.missing(state, child, [example])]

    def take(self, state: State, _answers: Answers, /) -> None:
        if not self.plan(state):
            _Steps(self._given).close(state)
