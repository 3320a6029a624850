"""What a search strategy is: pure functions over one JSON state.

A strategy never calls a model and never sees an example's text: it names candidates and examples by id and asks for
items. Whoever drives it turns each item into jobs, and gives the answers back:

    state = strategy.start(setup)
    while (reason := strategy.done(state)) is None:
        items = strategy.plan(state)               # all of them may run at once
        state = strategy.apply(state, answers)     # answers to any part of them, in any order
    winner = strategy.best(state)

The driver may trim a plan to its budget. What has no answer is planned again, with the same key, after `apply`; a plan
that has to be trimmed to nothing means that the budget is used up. `apply` never changes the state that it is given,
and a state that went through JSON (state_codec) goes on exactly as the one that did not: random draws depend on the
seed, a purpose and a counter alone (utilities.draws).

An outside strategy is an entry point of the group `metasync.strategies`: its name is the strategy's name, its object is
a class that is made without arguments and is a Strategy. One that raises, or returns what is not as it says here, ends
its run with the finish reason error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class FinishReason(StrEnum):
    """Why a search ended. A strategy gives the first five; the others are its driver's."""

    ITERATIONS = "iterations"
    TARGET = "target"
    NO_IMPROVEMENT = "no_improvement"
    PERFECT = "perfect"
    ERROR = "error"
    BUDGET = "budget"
    NO_HEADROOM = "no_headroom"
    CANCELLED = "cancelled"


class ProposalKind(StrEnum):
    """What a meta call is asked for; llm_optimizer.strategies.meta_prompts has a template for each."""

    EDIT = "edit"
    TRAJECTORY = "trajectory"
    MERGE = "merge"
    MUTATE = "mutate"
    PARAPHRASE = "paraphrase"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a search is about; it does not change. The holdout is not in it: a strategy cannot use it.

    `feedback` and `validation` are ids of disjoint examples (the same ones where there are too few); `golds` those of
    `feedback` that have an expected answer. `rollouts` is what may be spent, for strategies that size themselves by it.
    `judge_noise` is the standard deviation of a score when one output is scored twice. `locked` are parts of the prompt
    that every candidate must hold to the letter. `arms` is the number of model combinations, for combos; `own_judges`
    whether some of them are scored by a judge of their own. `weights` says how much each example counts in means, 1 on
    average; empty where all count the same.
    """

    prompt: str
    feedback: tuple[str, ...]
    validation: tuple[str, ...]
    golds: tuple[str, ...] = ()
    seed: int = 0
    rollouts: int = 600
    target: float | None = None
    judge_noise: float = 0.0
    locked: tuple[str, ...] = ()
    max_chars: int | None = None
    pairwise_only: bool = False
    arms: int = 1
    own_judges: bool = False
    weights: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A prompt text. `step` is the iteration that made it, `rejected` why it is out of the search (None: it is not)."""

    id: str
    text: str
    parents: tuple[str, ...] = ()
    step: int = 0
    kind: str = "seed"
    rationale: str = ""
    rejected: str | None = None


@dataclass(slots=True, kw_only=True)
class State:
    """All that a search knows. `scores[candidate][example]` is in [0, 1], None where it was asked for and not got.

    `phase` and `scratch` (JSON) are the strategy's own. `counters` count what must not start again after a resume.
    """

    strategy: str
    setup: Setup
    phase: str
    candidates: dict[str, Candidate] = field(default_factory=dict)
    scores: dict[str, dict[str, float | None]] = field(default_factory=dict)
    step: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    scratch: dict[str, Any] = field(default_factory=dict)
    finish: FinishReason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    """A rollout: the candidate answers the example, and the run's evaluator scores the answer.

    Asked for again (same key), it is answered from what is stored and costs nothing: its output and feedback are needed
    again. `arm` is the model combination, whose own judge scores unless `reference`: then the one that all share does.
    Of several `judgements` of one answer the score is the mean.
    """

    candidate: str
    example: str
    sample: int = 0
    arm: int = 0
    reference: bool = False
    judgements: int = 1

    @property
    def key(self) -> str:
        key = f"evaluate/{self.arm}/{self.candidate}/{self.example}/{self.sample}"
        key = f"{key}/reference" if self.reference else key
        return f"{key}/{self.judgements}" if self.judgements > 1 else key

    @property
    def rollouts(self) -> int:
        return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A scored answer as the meta-model gets it; input and expected answer are looked up by `example`."""

    example: str
    output: str
    score: float
    feedback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Propose:
    """A meta call for `count` new texts. `parent`, `second`, `history` and `rejected` are ids of candidates.

    `history` pairs each with its score in [0, 1], in the order to show. `golds` are examples to show with their
    expected answers. For a merge, `wins` are the examples where `parent` is better and those where `second` is.
    """

    serial: int
    kind: ProposalKind
    parent: str
    second: str | None = None
    count: int = 1
    score: float | None = None
    shown: tuple[Shown, ...] = ()
    golds: tuple[str, ...] = ()
    history: tuple[tuple[str, float], ...] = ()
    rejected: tuple[str, ...] = ()
    wins: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    arm: int = 0

    @property
    def key(self) -> str:
        return f"propose/{self.arm}/{self.serial}"

    @property
    def rollouts(self) -> int:
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """Two candidates answer one example, and a pairwise judge says in both orders which answer is better.

    `reference` is as in Evaluate.
    """

    first: str
    second: str
    example: str
    arm: int = 0
    reference: bool = False

    @property
    def key(self) -> str:
        return f"compare/{self.arm}/{self.first}/{self.second}/{self.example}"

    @property
    def rollouts(self) -> int:
        return 2


Item = Evaluate | Propose | Compare


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The answer to Evaluate. `score` is None where there is none (`problem` says why), which is never a 0.

    `tells` is whether the feedback already shows what was expected; `fresh` is False where nothing was spent for it.
    `cost` is in one currency for the whole run.
    """

    key: str
    score: float | None
    output: str = ""
    feedback: str = ""
    problem: str | None = None
    tells: bool = False
    cost: float = 0.0
    fresh: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A text from the meta-model. `fault` is what the reader of the answer had against it, None if nothing."""

    text: str
    rationale: str = ""
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """The answer to Propose; no proposals where the call failed or its answer could not be read."""

    key: str
    proposals: tuple[Proposal, ...] = ()
    problem: str | None = None
    cost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The answer to Compare. `winner` is "first", "second" or "tie" (also where the two orders disagree), else None."""

    key: str
    winner: str | None
    feedback: str = ""
    problem: str | None = None
    cost: float = 0.0
    fresh: bool = True


Answer = Scored | Proposed | Compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """What a search has found so far. `mean` is over the validation examples; None before any was scored."""

    candidate: str
    mean: float | None
    arm: int = 0


class Strategy(Protocol):
    """See the module. All of it is pure; `start` raises InvalidField for a parameter that is not acceptable."""

    def start(self, setup: Setup) -> State: ...

    def plan(self, state: State) -> tuple[Item, ...]:
        """What is to be asked next, in the order of importance; keys are unique. Empty only when the search is done."""
        ...

    def apply(self, state: State, answers: Sequence[Answer]) -> State:
        """The state after some or all of `plan(state)` was answered; the order of the answers does not matter."""
        ...

    def done(self, state: State) -> FinishReason | None: ...

    def best(self, state: State) -> Best:
        """The winner so far, at any time; the first prompt while nothing is better."""
        ...
