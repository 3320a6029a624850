"""Optimization runs: begun, looked at, and held up or ended from outside."""

from collections.abc import Callable, Sequence
from typing import Protocol

from api.services.changing import changed
from api.services.job_drafts import Maker
from api.services.job_edits import Editor
from api.services.prompt_flows import Winner
from api.services.references import Catalogue, Known, Wanted
from engine.errors import InvalidField, MetasyncError, NotFound, Refused, UnknownReference
from engine.jobs.queue import Page
from engine.llm import JsonObject
from engine.metadata import Metadata
from engine.records.control import RunControl
from engine.records.runs import Run, RunStatus, Withdrawal, cancelled, discarded, paused, resumed
from engine.records.searches import SearchTerms, Verdict
from engine.records.store import RecordStore, Where
from utilities.clock import Clock
from utilities.ids import ObjectIds

KIND = "Run"

NoRun = Callable[[str], MetasyncError]


class RunDraft(Protocol):
    """A run as it was asked for. Prompts are ids, models are names."""

    @property
    def initial_working_prompt_ids(self) -> Sequence[str]: ...
    @property
    def eval_prompt_id(self) -> str: ...
    @property
    def eval_model(self) -> str: ...
    @property
    def meta_prompt_id(self) -> str: ...
    @property
    def meta_model(self) -> str: ...
    @property
    def working_models(self) -> Sequence[str]: ...
    @property
    def max_iterations(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def priority(self) -> int: ...
    @property
    def request_data(self) -> JsonObject: ...
    def terms(self) -> SearchTerms | None: ...


class RunService:
    """Synchronous. A client sees and commands its own runs, an admin all."""

    def __init__(
        self, runs: RecordStore[Run], control: RunControl, catalogue: Catalogue, *, clock: Clock, ids: ObjectIds
    ) -> None:
        self._runs = runs
        self._control = control
        self._catalogue = catalogue
        self._clock = clock
        self._ids = ids

    def create(self, draft: RunDraft, maker: Maker) -> Run:
        """A running one; without a dataset its first job is in the queue. Raises UnknownReference and InvalidField."""
        wanted = _wanted(draft)
        known = self._catalogue.known([wanted])
        for field, model in _named_models(draft.terms()):
            _check_model(known, field, model, maker)
        known.check(wanted, maker.owner)
        run = Run(
            id=self._ids.new(),
            client_id=maker.owner.client_id,
            initial_prompt_ids=tuple(draft.initial_working_prompt_ids),
            eval_prompt_id=draft.eval_prompt_id,
            eval_model=draft.eval_model,
            meta_prompt_id=draft.meta_prompt_id,
            meta_model=draft.meta_model,
            working_models=tuple(draft.working_models),
            max_iterations=draft.max_iterations,
            temperature=draft.temperature,
            priority=draft.priority,
            request_data=draft.request_data,
            search=draft.terms(),
            metadata=Metadata(created_at=self._clock.now(), created_by=maker.by),
        )
        return self._control.begin(run)

    def get(self, editor: Editor, run_id: str) -> Run:
        """Raises NotFound."""
        return _seen(self._runs.get(run_id), editor, run_id, _not_found)

    def list(self, editor: Editor, status: RunStatus | None, page: Page) -> tuple[list[Run], int]:
        """A page of the runs, and how many there are."""
        equals: dict[str, Sequence[object]] = {"discarded": [False]}
        if not editor.admin:
            equals["clientId"] = [editor.by]
        if status is not None:
            equals["status"] = [str(status)]
        where = Where(equals=equals)
        return self._runs.find(where, page), self._runs.count(where)

    def pause(self, editor: Editor, run_id: str, withdrawal: Withdrawal) -> Run:
        """No further job until it is resumed; its jobs are taken back as `withdrawal` says. Raises Refused."""
        return self._held_up(editor, run_id, lambda run: paused(run, withdrawal, self._clock.now(), by=editor.by))

    def resume(self, editor: Editor, run_id: str) -> Run:
        """Raises Refused where it is not paused, or not there."""
        run = self._changed(editor, run_id, lambda run: resumed(run, self._clock.now(), by=editor.by))
        self._control.wake(run_id)
        return run

    def cancel(self, editor: Editor, run_id: str) -> Run:
        """Raises Refused where it has ended, or is not there."""
        return self._held_up(editor, run_id, lambda run: cancelled(run, self._clock.now(), by=editor.by))

    def promote(self, editor: Editor, run_id: str, *, force: bool) -> Run:
        """Publishes the winner. Raises Refused where nothing was proven, unless it is forced, or it is not there."""
        run = _seen(self._runs.get(run_id), editor, run_id, lambda key: UnknownReference(KIND, key))
        return self._control.promote(run, by=editor.by, force=force)

    def winner(self, editor: Editor, run_id: str, *, force: bool) -> Winner:
        """The better prompt, for a canary. Raises as `promote` does, and Refused where no evaluator scored it."""
        run = _seen(self._runs.get(run_id), editor, run_id, lambda key: UnknownReference(KIND, key))
        progress, search = run.progress, run.search
        if progress is None or search is None or progress.winner_id is None:
            raise Refused(f"run {run.id} has no better prompt that could be tried out")
        if progress.verdict not in (Verdict.PROVEN, Verdict.PROMOTED) and not force:
            raise Refused(f"run {run.id}: its prompt is {progress.verdict}; force=true tries it out all the same")
        if search.evaluator_id is None:
            raise Refused(f"run {run.id} has no evaluator, by which its prompt could be scored")
        return Winner(
            prompt_id=progress.winner_id, parent_id=run.initial_prompt_ids[0], evaluator_id=search.evaluator_id
        )

    def report(self, editor: Editor, run_id: str) -> JsonObject:
        """What the run has found so far and why it ended. Raises NotFound."""
        return self._control.report(self.get(editor, run_id))

    def delete(self, editor: Editor, run_id: str) -> None:
        """Raises NotFound."""
        run = self._changed(
            editor, run_id, lambda run: discarded(run, self._clock.now(), by=editor.by), missing=_not_found
        )
        self._control.withdraw(run)

    def _held_up(self, editor: Editor, run_id: str, change: Callable[[Run], Run]) -> Run:
        run = self._changed(editor, run_id, change)
        self._control.withdraw(run)
        return run

    def _changed(self, editor: Editor, run_id: str, change: Callable[[Run], Run], missing: NoRun | None = None) -> Run:
        absent = missing or (lambda key: UnknownReference(KIND, key))
        return changed(self._runs, run_id, lambda found: change(_seen(found, editor, run_id, absent)))


def _wanted(draft: RunDraft) -> Wanted:
    prompts = (*draft.initial_working_prompt_ids, draft.eval_prompt_id, draft.meta_prompt_id)
    named = tuple(name for _, name in _named_models(draft.terms()))
    return Wanted(prompts, (*draft.working_models, draft.eval_model, draft.meta_model, *named))


def _named_models(terms: SearchTerms | None) -> list[tuple[str, str]]:
    """The models that a search alone names, each with its field."""
    if terms is None:
        return []
    named = [
        (f"modelCombinations[{place}].{field}", model)
        for place, arm in enumerate(terms.combinations)
        for field, model in (("workingModel", arm.working), ("metaModel", arm.meta), ("judgeModel", arm.judge))
    ]
    return [(field, name) for field, name in (*named, ("referenceJudge", terms.reference_judge)) if name is not None]


def _check_model(known: Known, field: str, model: str, maker: Maker) -> None:
    try:
        known.check(Wanted((), (model,)), maker.owner)
    except UnknownReference as error:
        raise InvalidField(field, str(error)) from error


def _not_found(run_id: str) -> MetasyncError:
    return NotFound(KIND, run_id)


def _seen(run: Run | None, editor: Editor, run_id: str, missing: NoRun) -> Run:
    """Raises `missing` alike for what is not there and what is another client's."""
    if run is None or run.discarded or not (editor.admin or run.client_id == editor.by):
        raise missing(run_id)
    return run
