"""Evaluators: made, looked at, and deleted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from api.services.changing import changed
from api.services.job_drafts import Maker
from api.services.job_edits import Editor
from api.services.references import Catalogue, Wanted
from api.services.versions import add_next, conditions, seen
from engine.errors import InvalidField
from engine.evaluation.measures import Measures
from engine.evaluation.values import Metric, judge_models
from engine.jobs.queue import Page
from engine.metadata import Metadata
from engine.records.evaluators import Evaluator
from engine.records.store import RecordStore, Where
from utilities.clock import Clock
from utilities.ids import ObjectIds

KIND = "Evaluator"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatorDraft:
    name: str
    metrics: Sequence[Metric]
    description: str | None = None


class EvaluatorService:
    """Synchronous. A client sees its own evaluators, an admin all."""

    def __init__(
        self,
        evaluators: RecordStore[Evaluator],
        catalogue: Catalogue,
        measures: Measures,
        *,
        clock: Clock,
        ids: ObjectIds,
    ) -> None:
        self._evaluators = evaluators
        self._catalogue = catalogue
        self._measures = measures
        self._clock = clock
        self._ids = ids

    def create(self, draft: EvaluatorDraft, maker: Maker) -> Evaluator:
        """The next version of that name. Raises InvalidField and UnknownReference."""
        self.check(draft.metrics, maker)
        client_id, evaluator_id = maker.owner.client_id, self._ids.new()

        def make(version: int) -> Evaluator:
            return Evaluator(
                id=evaluator_id,
                client_id=client_id,
                name=draft.name,
                version=version,
                description=draft.description,
                metrics=tuple(draft.metrics),
                metadata=Metadata(created_at=self._clock.now(), created_by=maker.by),
            )

        return add_next(self._evaluators, client_id, draft.name, make)

    def check(self, metrics: Sequence[Metric], maker: Maker) -> None:
        """Raises InvalidField that names the metric's parameter, and UnknownReference for a judge's model."""
        names = [metric.name for metric in metrics]
        if not any(metric.counts for metric in metrics):
            raise InvalidField("metrics", "every weight is 0 and none is hard: whatever is answered would score 1")
        for place, metric in enumerate(metrics):
            if metric.name in names[:place]:
                raise InvalidField(f"metrics[{place}].name", f"{metric.name!r} is there already")
            wrong = self._measures.wrong(metric)
            if wrong is not None:
                raise InvalidField(f"metrics[{place}].parameters.{wrong.parameter[:100]}", wrong.reason)
        wanted = Wanted((), judge_models(metrics))
        self._catalogue.known([wanted]).check(wanted, maker.owner)

    def list(self, editor: Editor, name: str | None, page: Page) -> tuple[list[Evaluator], int]:
        """A page of the evaluators, and how many there are."""
        where = Where(equals=conditions(editor, name))
        return self._evaluators.find(where, page), self._evaluators.count(where)

    def get(self, editor: Editor, evaluator_id: str) -> Evaluator:
        """Raises NotFound."""
        return seen(self._evaluators.get(evaluator_id), editor, KIND, evaluator_id)

    def delete(self, editor: Editor, evaluator_id: str) -> None:
        """Raises NotFound. What uses it already goes on with it."""
        now = self._clock.now()

        def change(found: Evaluator | None) -> Evaluator:
            evaluator = seen(found, editor, KIND, evaluator_id)
            return replace(evaluator, metadata=evaluator.metadata.deleted(now, editor.by))

        changed(self._evaluators, evaluator_id, change)
        self._catalogue.forget()
