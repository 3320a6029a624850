"""Evaluations: begun, looked at, compared, and ended from outside. Their calls are made by whoever drives them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from api.services.changing import changed
from api.services.job_drafts import Maker
from api.services.job_edits import Editor
from api.services.references import Catalogue, Wanted
from api.services.versions import seen
from engine.errors import InvalidField, MetasyncError, NotFound, Refused, UnknownReference
from engine.evaluation.answers import answer_of
from engine.evaluation.statistics import LEVEL, MOST_UNSCORED, Paired, paired, weighted_mean
from engine.jobs.job import Job
from engine.jobs.queue import Page
from engine.llm import ResponseFormat
from engine.metadata import Metadata
from engine.records.datasets import Dataset
from engine.records.evaluation_results import EvaluationResults
from engine.records.evaluations import (
    MOST_CELLS,
    MOST_UNITS,
    Contender,
    Evaluation,
    EvaluationStatus,
    ItemResult,
    ItemsAt,
    cancelled,
    discarded,
)
from engine.records.evaluators import Evaluator
from engine.records.store import Storage, Where
from utilities.clock import Clock
from utilities.ids import ObjectIds

KIND = "Evaluation"
Wake = Callable[[str | None], None]


class EvaluationDraft(Protocol):
    """An evaluation as it was asked for. Datasets, evaluators and prompts are ids, models are names."""

    @property
    def name(self) -> str | None: ...
    @property
    def dataset(self) -> str: ...
    @property
    def evaluator(self) -> str: ...
    @property
    def contenders(self) -> Sequence[Contender]: ...
    @property
    def models(self) -> Sequence[str]: ...
    @property
    def temperature(self) -> float: ...
    @property
    def response_format(self) -> ResponseFormat: ...
    @property
    def priority(self) -> int: ...
    @property
    def max_parallel(self) -> int: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Of one cell with another, item by item: `gain` is of the second one's scores over the first one's, `loss` the
    same the other way round. `weighted`: the items' weights differ, and count in all of it.

    `only_first` and `only_second` count the items that one side alone has scored; they are in no pair. `unscored` is
    the share of answers without a score, on the side where that is larger.
    """

    gain: Paired
    loss: Paired
    first_mean: float
    second_mean: float
    only_first: int
    only_second: int
    unscored: float = 0.0
    weighted: bool = False

    @property
    def verdict(self) -> str:
        """`better` or `worse` where the difference is hardly luck and at most MOST_UNSCORED have no score, else
        `not_proven`."""
        if self.unscored > MOST_UNSCORED:
            return "not_proven"
        if self.gain.proves(level=LEVEL / 2):
            return "better"
        return "worse" if self.loss.proves(level=LEVEL / 2) else "not_proven"


@dataclass(frozen=True, slots=True)
class _Score:
    score: float
    weight: float


@dataclass(frozen=True, slots=True)
class _Scores:
    """Of a cell, by items; `unscored` is the share of its answers that have no score."""

    by_item: dict[str, _Score]
    unscored: float


class EvaluationService:
    """Synchronous. A client sees its own evaluations, an admin all."""

    def __init__(self, storage: Storage, catalogue: Catalogue, wake: Wake, *, clock: Clock, ids: ObjectIds) -> None:
        self._storage = storage
        self._evaluations = storage.evaluations
        self._results = EvaluationResults(storage.evaluation_parts)
        self._catalogue = catalogue
        self._wake = wake
        self._clock = clock
        self._ids = ids

    def create(self, draft: EvaluationDraft, maker: Maker) -> Evaluation:
        """A running one. Raises UnknownReference, and InvalidField where it would be too large."""
        cells = len(draft.contenders) * len(draft.models)
        if cells > MOST_CELLS:
            raise InvalidField("prompts", f"times models are {cells}, more than {MOST_CELLS}")
        evaluation = self._drafted(draft, maker)
        if evaluation.units > MOST_UNITS:
            raise InvalidField("dataset", f"there would be {evaluation.units} answers, more than {MOST_UNITS}")
        self._evaluations.add(evaluation)
        self._wake(None)
        return evaluation

    def get(self, editor: Editor, evaluation_id: str) -> Evaluation:
        """Raises NotFound."""
        return _seen(self._evaluations.get(evaluation_id), editor, evaluation_id, _not_found)

    def list(self, editor: Editor, status: EvaluationStatus | None, page: Page) -> tuple[list[Evaluation], int]:
        """A page of the evaluations, and how many there are."""
        equals: dict[str, Sequence[object]] = {"discarded": [False]}
        if not editor.admin:
            equals["clientId"] = [editor.by]
        if status is not None:
            equals["status"] = [str(status)]
        where = Where(equals=equals)
        return self._evaluations.find(where, page), self._evaluations.count(where)

    def results(
        self, editor: Editor, evaluation_id: str, page: Page
    ) -> tuple[Sequence[tuple[ItemResult, object]], int]:
        """A page of the results that are stored so far, each with its output where its job still has that."""
        evaluation = self.get(editor, evaluation_id)
        last = evaluation.done - page.skip if page.newest_first else page.skip + page.limit
        first = max(last - page.limit, 0)
        results = self._results.slice(evaluation, first, max(last - first, 0))
        jobs = self._storage.jobs.get_many([result.job_id for result in results])
        shown = [(result, _output(jobs.get(result.job_id))) for result in results]
        return shown[::-1] if page.newest_first else shown, evaluation.done

    def cancel(self, editor: Editor, evaluation_id: str) -> Evaluation:
        """Its jobs are taken back, those in flight too. Raises Refused where it has ended, or is not there."""
        now = self._clock.now()
        return self._changed(evaluation_id, editor, lambda found: cancelled(found, now, by=editor.by), _unknown)

    def delete(self, editor: Editor, evaluation_id: str) -> None:
        """Raises NotFound."""
        now = self._clock.now()
        self._changed(evaluation_id, editor, lambda found: discarded(found, now, by=editor.by), _not_found)

    def compare(self, editor: Editor, first: tuple[str, int], second: tuple[str, int]) -> Comparison:
        """Of cells, each the id of an evaluation and a number.

        Raises NotFound, InvalidField for no such cell and for evaluations of different items or by other metrics, and
        Refused while one of them runs: a verdict that is looked at until it pleases proves nothing.
        """
        sides = self.get(editor, first[0]), self.get(editor, second[0])
        self._check_alike(*sides)
        for side in sides:
            _check_ended(side)
        scores = self._scores(editor, "cell", first), self._scores(editor, "otherCell", second)
        before, after = (each.by_item for each in scores)
        both = [item for item in before if item in after]
        if not both:
            raise InvalidField("other", "no item has a score in both evaluations")
        differences = [after[item].score - before[item].score for item in both]
        weights = _unequal([before[item].weight for item in both])
        seed = f"{first}/{second}"
        return Comparison(
            gain=paired(differences, seed, weights=weights),
            loss=paired([-each for each in differences], seed, weights=weights),
            first_mean=_mean([before[item].score for item in both], weights),
            second_mean=_mean([after[item].score for item in both], weights),
            unscored=max(each.unscored for each in scores),
            weighted=weights is not None,
            only_first=len(before) - len(both),
            only_second=len(after) - len(both),
        )

    @staticmethod
    def _check_alike(one: Evaluation, other: Evaluation) -> None:
        if one.dataset_id != other.dataset_id:
            raise InvalidField("other", f"it is over dataset {other.dataset_id}, and this one over {one.dataset_id}")
        if one.metrics != other.metrics:
            raise InvalidField("other", "it is scored by other metrics")

    def _scores(self, editor: Editor, field: str, cell: tuple[str, int]) -> _Scores:
        evaluation = self.get(editor, cell[0])
        if cell[1] >= evaluation.cells:
            raise InvalidField(field, f"evaluation {evaluation.id} has {evaluation.cells} cells, counted from 0")
        results = [each for each in self._results.all(evaluation) if each.cell == cell[1]]
        known = {each.item_id: _Score(each.score, each.weight) for each in results if each.score is not None}
        return _Scores(known, 1 - len(known) / len(results) if results else 0.0)

    def _drafted(self, draft: EvaluationDraft, maker: Maker) -> Evaluation:
        owner = Editor(maker.owner.client_id, False)
        dataset, evaluator = self._named(draft, owner)
        prompts = tuple(prompt for each in draft.contenders for prompt in each.prompts)
        wanted = Wanted(prompts, tuple(draft.models))
        self._catalogue.known([wanted]).check(wanted, maker.owner)
        return Evaluation(
            id=self._ids.new(),
            client_id=owner.by,
            name=draft.name,
            dataset_id=dataset.id,
            evaluator_id=evaluator.id,
            items=ItemsAt(id=dataset.id, count=dataset.count, starts=dataset.starts),
            metrics=evaluator.metrics,
            contenders=tuple(draft.contenders),
            models=tuple(draft.models),
            temperature=draft.temperature,
            response_format=draft.response_format,
            priority=draft.priority,
            max_parallel=draft.max_parallel,
            seed=draft.seed,
            metadata=Metadata(created_at=self._clock.now(), created_by=maker.by),
        )

    def _named(self, draft: EvaluationDraft, owner: Editor) -> tuple[Dataset, Evaluator]:
        try:
            dataset = seen(self._storage.datasets.get(draft.dataset), owner, "dataset", draft.dataset)
            return dataset, seen(self._storage.evaluators.get(draft.evaluator), owner, "evaluator", draft.evaluator)
        except NotFound as error:
            raise UnknownReference(error.kind, error.identifier) from error

    def _changed(
        self,
        evaluation_id: str,
        editor: Editor,
        change: Callable[[Evaluation], Evaluation],
        missing: Callable[[str], MetasyncError],
    ) -> Evaluation:
        evaluation = changed(
            self._evaluations, evaluation_id, lambda found: change(_seen(found, editor, evaluation_id, missing))
        )
        self._wake(evaluation_id)
        return evaluation


def _check_ended(evaluation: Evaluation) -> None:
    if evaluation.status is EvaluationStatus.RUNNING:
        far = f"{evaluation.done} of its {evaluation.units} answers are scored"
        raise Refused(f"evaluation {evaluation.id} still runs, and {far}: compare when both have ended")


def _unequal(weights: Sequence[float]) -> Sequence[float] | None:
    """None where all weigh the same: then nothing has to be weighed."""
    return None if min(weights) == max(weights) else weights


def _mean(scores: Sequence[float], weights: Sequence[float] | None) -> float:
    mean = None if weights is None else weighted_mean(scores, weights)
    return sum(scores) / len(scores) if mean is None else mean


def _output(job: Job | None) -> object:
    return None if job is None or job.response_data is None else answer_of(job.response_data)


def _not_found(evaluation_id: str) -> MetasyncError:
    return NotFound(KIND, evaluation_id)


def _unknown(evaluation_id: str) -> MetasyncError:
    return UnknownReference(KIND, evaluation_id)


def _seen(
    evaluation: Evaluation | None, editor: Editor, evaluation_id: str, missing: Callable[[str], MetasyncError]
) -> Evaluation:
    """Raises `missing` alike for what is not there and what is another client's."""
    if evaluation is None or evaluation.discarded or not (editor.admin or evaluation.client_id == editor.by):
        raise missing(evaluation_id)
    return evaluation
