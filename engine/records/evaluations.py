"""Evaluations: prompts by models on a dataset, scored by an evaluator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from engine.errors import TransitionRefused
from engine.evaluation.statistics import Interval
from engine.evaluation.values import Metric
from engine.jobs.job import Lease, Totals
from engine.llm import JsonObject, ResponseFormat
from engine.metadata import Metadata
from engine.records.runs import sum_of

OPERATION = "evaluation"
"""Of the jobs that evaluations and dry runs make."""

MOST_CELLS = 50
MOST_UNITS = 200_000
"""Of one evaluation: cells, and answers to score."""

BLOCK = 50
"""Results are stored so many together."""


class EvaluationStatus(StrEnum):
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


class Mark(StrEnum):
    """What came of an answer. Only what is scored has a score, and counts in a mean."""

    SCORED = "scored"
    UNSCORED = "unscored"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """What is told to a model: stored prompts by their ids, a text, or both in this order."""

    prompts: tuple[str, ...] = ()
    instructions: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsAt:
    """Where an evaluation's items are: see Dataset. A dataset that is deleted keeps its items for what has begun."""

    id: str
    count: int
    starts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """What came of one item in one cell. `reason` says why there is no score. `judge_jobs` are in the metrics' order.

    `metrics` are by name: {"score", "feedback"} or {"unscored": reason} or {"error": reason}.
    """

    item_id: str
    cell: int
    mark: Mark
    weight: float
    job_id: str
    score: float | None = None
    feedback: str | None = None
    reason: str | None = None
    metrics: JsonObject = field(default_factory=dict)
    judge_jobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPart:
    """The results of a block of items and cells, in their order."""

    id: str
    evaluation_id: str
    results: tuple[ItemResult, ...]
    metadata: Metadata
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How far a cell is. `interval` is of the mean, once all of it is there; so are `metrics`, the means by name."""

    scored: int = 0
    unscored: int = 0
    errors: int = 0
    weight: float = 0.0
    total: float = 0.0
    interval: Interval | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> float | None:
        """Weighted by the items' weights; None where nothing is scored."""
        return self.total / self.weight if self.weight else None

    def counted(self, result: ItemResult) -> "Tally":
        if result.score is None:
            error = result.mark is Mark.ERROR
            return replace(self, errors=self.errors + error, unscored=self.unscored + (not error))
        return replace(
            self,
            scored=self.scored + 1,
            weight=self.weight + result.weight,
            total=self.total + result.weight * result.score,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """An evaluation as it is stored. Its units are items times cells, an item's cells together.

    A cell is one contender with one model: cell `c` is contender c // models, model c % models. `done` units have
    their results stored. `metrics` are the evaluator's when it began. `withdrawal` says that its jobs are still to be
    taken back, `discarded` that the record is deleted then. `spent` is by role: work, eval.
    """

    id: str
    client_id: str
    name: str | None
    dataset_id: str
    evaluator_id: str
    items: ItemsAt
    metrics: tuple[Metric, ...]
    contenders: tuple[Contender, ...]
    models: tuple[str, ...]
    temperature: float
    response_format: ResponseFormat
    priority: int
    max_parallel: int
    seed: int
    metadata: Metadata
    status: EvaluationStatus = EvaluationStatus.RUNNING
    done: int = 0
    tallies: tuple[Tally, ...] = ()
    spent: Mapping[str, Totals] = field(default_factory=dict)
    failure_reason: str | None = None
    withdrawal: bool = False
    discarded: bool = False
    lease: Lease | None = None
    revision: int = 0

    @property
    def cells(self) -> int:
        return len(self.contenders) * len(self.models)

    @property
    def units(self) -> int:
        return self.items.count * self.cells

    @property
    def is_open(self) -> bool:
        """Whether there is something left to do for whoever drives it."""
        return self.status is EvaluationStatus.RUNNING or self.withdrawal

    @property
    def totals(self) -> Totals:
        return sum_of(self.spent.values())

    def cell(self, number: int) -> tuple[Contender, str]:
        return self.contenders[number // len(self.models)], self.models[number % len(self.models)]


def part_id(evaluation_id: str, number: int) -> str:
    return f"{evaluation_id}-{number}"


def advanced(evaluation: Evaluation, results: Sequence[ItemResult], spent: Mapping[str, Totals]) -> Evaluation:
    """With the results of the next block, which are stored."""
    tallies = list(evaluation.tallies or [Tally()] * evaluation.cells)
    for result in results:
        tallies[result.cell] = tallies[result.cell].counted(result)
    together = {
        role: sum_of(each[role] for each in (evaluation.spent, spent) if role in each)
        for role in dict.fromkeys((*evaluation.spent, *spent))
    }
    return replace(evaluation, done=evaluation.done + len(results), tallies=tuple(tallies), spent=together)


def cancelled(evaluation: Evaluation, now: datetime, *, by: str) -> Evaluation:
    """Raises TransitionRefused where it has ended."""
    if evaluation.status is not EvaluationStatus.RUNNING:
        raise TransitionRefused(
            f"invalid status transition: an evaluation that is {evaluation.status} cannot be cancelled"
        )
    metadata = evaluation.metadata.touched(now, by)
    return replace(evaluation, status=EvaluationStatus.CANCELLED, withdrawal=True, metadata=metadata)


def discarded(evaluation: Evaluation, now: datetime, *, by: str) -> Evaluation:
    """Out of everybody's sight, and deleted once its jobs are taken back."""
    ended = evaluation if evaluation.status is not EvaluationStatus.RUNNING else cancelled(evaluation, now, by=by)
    return replace(ended, withdrawal=True, discarded=True, metadata=evaluation.metadata.touched(now, by))


def withdrawn(evaluation: Evaluation, now: datetime) -> Evaluation:
    """After its jobs have been taken back."""
    done = replace(evaluation, withdrawal=False, lease=None)
    if not evaluation.discarded:
        return done
    return replace(done, metadata=evaluation.metadata.deleted(now, evaluation.metadata.updated_by))
