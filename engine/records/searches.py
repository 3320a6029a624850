"""What a run with a dataset searches for, and how far it is: kept beside the fields that every run has."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from engine.llm import JsonObject
from engine.metadata import Metadata
from engine.records.values import Money


class Promotion(StrEnum):
    """Whether a winner becomes the prompt in use: never, when somebody asks for it, or when it is proven better."""

    NEVER = "never"
    ASK = "ask"
    WHEN_PROVEN = "when_proven"


class Verdict(StrEnum):
    """What a search came to. Only `promoted` changes anything; `proven` waits to be asked for."""

    PROMOTED = "promoted"
    PROVEN = "proven"
    NOT_PROVEN = "not_proven"
    NO_IMPROVEMENT = "no_improvement"
    NO_HEADROOM = "no_headroom"


class Phase(StrEnum):
    CHECKS = "checks"
    SEARCH = "search"
    HOLDOUT = "holdout"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBudget:
    """What a run may use of its calls in all roles; None does not restrict. `seconds` are of running, not of pauses."""

    calls: int | None = None
    tokens: int | None = None
    amount: Money | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Combination:
    """Models by name: which answers, which edits the prompt, and which judges for the editing one (None: whoever
    ranks)."""

    working: str
    meta: str
    judge: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchTerms:
    """As it was asked for.

    `holdout` is the share of the dataset that the search never sees, or the number of its items. `evaluator_id` None:
    the evaluation prompt is the rubric of the one judge. `min_gain` is the least mean gain worth a promotion.
    `reference_judge` is the model that ranks combinations and proves the winner, None: the evaluator's own.
    """

    dataset_id: str
    evaluator_id: str | None = None
    strategy: str = "auto"
    parameters: Mapping[str, object] = field(default_factory=dict)
    holdout: float | int | None = None
    seed: int = 0
    budget: RunBudget = RunBudget()
    target: float | None = None
    patience: int | None = None
    combinations: tuple[Combination, ...] = ()
    reference_judge: str | None = None
    promote: Promotion = Promotion.ASK
    min_gain: float = 0.01
    max_parallel: int = 16
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StateAt:
    """Where the state of a search is stored: `parts` of them, of the given generation, with the hash of all bytes."""

    generation: int
    parts: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchProgress:
    """The head of a search; all else is in the parts that `at` names.

    `active_since` is since when it runs, `active_seconds` how long it ran before that. `finish` says why the search
    ended, `verdict` what came of it, `numbers` with which figures. `winner_id` is the prompt that the winner became.
    """

    phase: Phase = Phase.CHECKS
    step: int = 0
    at: StateAt | None = None
    best_text: str | None = None
    baseline: float | None = None
    best: float | None = None
    finish: str | None = None
    verdict: Verdict | None = None
    numbers: JsonObject = field(default_factory=dict)
    winner_id: str | None = None
    active_since: datetime | None = None
    active_seconds: float = 0.0

    def active(self, now: datetime) -> float:
        """For how many seconds it has run."""
        since = 0.0 if self.active_since is None else (now - self.active_since).total_seconds()
        return self.active_seconds + max(since, 0.0)

    def stopped(self, now: datetime) -> "SearchProgress":
        return replace(self, active_since=None, active_seconds=self.active(now))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPart:
    """A piece of a search's state: `text` is base64, the id says which run, generation and place it belongs to.

    Marks of looks at a holdout are kept as such too, under no run: see llm_optimizer.looks.
    """

    id: str
    run_id: str
    text: str
    metadata: Metadata
    revision: int = 0
