"""A strategy as a machine of phases: what every strategy shares in plan, apply and done."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from engine.evaluation.statistics import MOST_UNSCORED
from llm_optimizer.strategies import pool
from llm_optimizer.strategies.interface import (
    Answer,
    Best,
    Candidate,
    Compared,
    Evaluate,
    FinishReason,
    Item,
    Proposal,
    Proposed,
    Scored,
    Setup,
    State,
)
from llm_optimizer.strategies.state_codec import copied

ENOUGH_TO_JUDGE = 20
"""A search ends with an error when more than MOST_UNSCORED of at least so many rollouts have no score."""

Answers = Mapping[str, Answer]


class Phase(ABC):
    """`plan` gives what is still missing of this phase; `take` looks at what there is now, and moves on when it can.

    `take` may change the state that it is given. Scores are in the state already.
    """

    @abstractmethod
    def plan(self, state: State) -> list[Item]: ...

    @abstractmethod
    def take(self, state: State, answers: Answers, /) -> None: ...


class PhasedStrategy(ABC):
    """A strategy of phases, by the names that `state.phase` has."""

    name: str

    @abstractmethod
    def phases(self, state: State) -> Mapping[str, Phase]: ...

    def plan(self, state: State) -> tuple[Item, ...]:
        return () if state.finish is not None else tuple(self.phases(state)[state.phase].plan(state))

    def apply(self, state: State, answers: Sequence[Answer]) -> State:
        asked = {item.key: item for item in self.plan(state)}
        known = {answer.key: answer for answer in answers if answer.key in asked}
        new = copied(state)
        for key, item in asked.items():
            answer = known.get(key)
            if isinstance(item, Evaluate) and isinstance(answer, Scored):
                _record(new, item, answer)
        if asked:
            self.phases(new)[new.phase].take(new, known)
        new.finish = new.finish or self.ended(new)
        return new

    def done(self, state: State) -> FinishReason | None:
        return state.finish

    def best(self, state: State) -> Best:
        return pool.best(state)

    def ended(self, state: State) -> FinishReason | None:
        """Reasons to end that hold for every strategy."""
        asked, unscored = state.counters.get("asked", 0), state.counters.get("unscored", 0)
        if asked >= ENOUGH_TO_JUDGE and unscored > MOST_UNSCORED * asked:
            return FinishReason.ERROR
        if state.setup.target is not None and any(score >= state.setup.target for _, score in pool.standing(state)):
            return FinishReason.TARGET
        return None


def opening(name: str, setup: Setup, phase: str, **scratch: Any) -> State:
    """The state before anything was asked; the first prompt is the first candidate."""
    first = Candidate(id=pool.SEED, text=setup.prompt)
    return State(strategy=name, setup=setup, phase=phase, candidates={first.id: first}, scratch=scratch)


def count(state: State, name: str, by: int = 1) -> int:
    """Raises a counter; its new value."""
    state.counters[name] = state.counters.get(name, 0) + by
    return state.counters[name]


def proposals(answers: Answers, key: str) -> tuple[Proposal, ...] | None:
    """What came back for a Propose: none where the call failed, None where there is no answer yet."""
    answer = answers.get(key)
    return answer.proposals if isinstance(answer, Proposed) else None


def compared(answers: Answers, key: str) -> Compared | None:
    answer = answers.get(key)
    return answer if isinstance(answer, Compared) else None


def _record(state: State, item: Evaluate, answer: Scored) -> None:
    known = state.scores.setdefault(item.candidate, {})
    if item.example not in known:
        count(state, "asked")
        count(state, "unscored", int(answer.score is None))
        known[item.example] = answer.score
