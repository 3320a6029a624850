"""The steps of a run that searches over a dataset: plan, reserve, ask, apply, store; one step after another.

Between two steps everything is stored. Within a step only the queue knows what was asked, which is enough: the plan
follows from the stored state, and a call that was made is found by its id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from engine.errors import InvalidField, NotFound, StorageCorrupt, UnknownReference
from engine.jobs.changes import added
from engine.jobs.job import Job, Totals
from engine.llm import JsonObject
from engine.records.runs import OPERATION, OPTIMIZER, Run, RunStatus, Withdrawal, failed
from engine.records.searches import Phase, RunBudget, SearchProgress, SearchTerms
from llm_optimizer import headroom
from llm_optimizer import search as searches
from llm_optimizer.allowance import Need, Seen, spent_of
from llm_optimizer.asking import Asked, Asking
from llm_optimizer.desk import Desk
from llm_optimizer.looks import Looks
from llm_optimizer.opening import effective, opened
from llm_optimizer.proving import Proving
from llm_optimizer.report import report_of
from llm_optimizer.reserving import Reserve, Till, kept_back, seen_name
from llm_optimizer.rollouts import Owner, paid
from llm_optimizer.run_tools import RunTools
from llm_optimizer.search import Search
from llm_optimizer.search_store import StateStore
from llm_optimizer.strategies.interface import FinishReason, Strategy
from llm_optimizer.strategies.registry import Strategies
from llm_optimizer.subject import Subject, Subjects

_SLICE_SECONDS = 2.0
"""A step of the driver's is given up after so long, so that other runs have their turn."""

_SHARE = 0.1
_SOONEST_SECONDS = 0.1
_LATEST_SECONDS = 2.0
"""Jobs that other replicas work on are asked for after a tenth of the time that the step has taken."""

_MOMENT = 0.01
_TIME_TO_SEARCH = 0.75
"""Of the seconds of a budget; the rest is for the proof on the holdout."""

_MOST_POINTS = 1_000
_CONSUMED_TOGETHER = 25


@dataclass(slots=True, kw_only=True)
class _Open:
    """A run that is driven here. `at` is which stored state it is at; the desk is the step under way."""

    run: Run
    terms: SearchTerms
    progress: SearchProgress
    subject: Subject
    strategy: Strategy
    search: Search
    budget: RunBudget
    desk: Desk | None = None
    asking: Asking | None = None
    began: float = 0.0
    refreshed: float = 0.0
    unconsumed: list[Job] = field(default_factory=list)
    late: bool = field(default=False)


class Searching:
    """For the driver's threads; one run by one of them at a time."""

    def __init__(
        self,
        tools: RunTools,
        subjects: Subjects,
        *,
        states: StateStore,
        strategies: Strategies,
        proving: Proving,
        looks: Looks,
    ) -> None:
        self._tools = tools
        self._subjects = subjects
        self._states = states
        self._strategies = strategies
        self._proving = proving
        self._looks = looks
        self._open: dict[str, _Open] = {}

    def begun(self, run: Run) -> Run:
        """A new run with its state stored. Raises InvalidField and UnknownReference where it cannot be as asked for."""
        assert run.search is not None
        pinned = self._subjects.pinned(run)
        search = opened(run.search, self._subjects.load(run, pinned), pinned)
        self._strategies.get(run.search.strategy).start(search.setup)
        at = self._states.write(run.id, search.step, searches.to_document(search))
        return replace(run, progress=SearchProgress(at=at, active_since=run.metadata.created_at))

    def close(self) -> None:
        self._subjects.close()

    def promoted(self, run: Run, *, by: str, force: bool) -> Run:
        """The run with its winner published. Raises Refused, and LeaseLost where it was changed meanwhile."""
        published = self._proving.published(run, self._tools.clock.now(), by=by, force=force)
        return run if published is run else self._tools.write(published)

    def report(self, run: Run) -> JsonObject:
        """Without the examples' texts where the dataset or something else that the run was about is gone."""
        if run.progress is None or run.progress.at is None:
            return report_of(run)
        search = searches.from_document(self._states.read(run.id, run.progress.at))
        try:
            return report_of(run, search, self._subjects.load(run, search.pinned))
        except (NotFound, UnknownReference):
            return report_of(run, search)

    def discard(self, run: Run) -> None:
        """Deletes the stored state of a run that is deleted."""
        if run.search is not None:
            self._states.forget(run)

    def forget(self, run_id: str) -> None:
        """What is known of the run in memory; it is read again when it is needed again."""
        self._open.pop(run_id, None)

    def step(self, run: Run) -> float | None:
        """See Errand. A run whose dataset, evaluator, strategy or state is gone fails with the reason."""
        try:
            return self._stepped(run)
        except (NotFound, UnknownReference, InvalidField, StorageCorrupt) as error:
            self.forget(run.id)
            told = run.progress and replace(run.progress, finish=str(FinishReason.ERROR))
            ended = failed(replace(run, progress=told), str(error), self._tools.clock.now())
            self._tools.write(replace(ended, withdrawal=Withdrawal.ALL, lease=None))
            return 0.0
        except BaseException:
            self.forget(run.id)
            raise

    def _stepped(self, run: Run) -> float | None:
        clock = self._tools.clock
        until = clock.monotonic() + _SLICE_SECONDS
        opened_run = self._opened(run)
        while clock.monotonic() < until:
            if opened_run.desk is None:
                self._plan(opened_run)
            desk = opened_run.desk
            if desk is not None:
                if not self._is_late(opened_run):
                    self._go_on(opened_run, desk)
                    self._consume_some(opened_run)
                    if not desk.is_done:
                        return self._patience(opened_run)
                    if desk.take_up(pairs=_in_pairs(opened_run.search)):
                        continue
                self._apply(opened_run, desk)
            if opened_run.run.status is not RunStatus.RUNNING:
                self.forget(run.id)
                return None
        return 0.0

    def _opened(self, run: Run) -> _Open:
        """As it was left here, or from storage."""
        assert run.search is not None
        assert run.progress is not None
        known = self._open.get(run.id)
        if known is not None and known.progress.at == run.progress.at and known.progress.step == run.progress.step:
            known.run, known.progress = run, run.progress
            return known
        if run.progress.at is None:
            raise StorageCorrupt(f"run {run.id} has no state")
        search = searches.from_document(self._states.read(run.id, run.progress.at))
        subject = self._subjects.load(run, search.pinned)
        made = _Open(
            run=run,
            terms=run.search,
            progress=run.progress,
            subject=subject,
            strategy=self._strategies.get(search.strategy_name),
            search=search,
            budget=effective(run.search.budget, subject, len(search.split.holdout)),
        )
        self._open[run.id] = made
        return made

    def _plan(self, it: _Open) -> None:
        """Sets the desk up, or stores the next phase where this one has nothing left to ask."""
        items = searches.plan(it.search, it.strategy, judged=it.subject.scoring.calls > 0)
        is_late, find = self._is_late(it), self._tools.queue.get_many
        if not items or is_late or self._is_stale(it):
            late = _desk(it, _asking(it), items) if items and is_late else None
            if late is not None and late.recover(find):
                self._apply(it, late)
            else:
                self._next_phase(it, within_budget=not is_late)
            return
        asking = _asking(it)
        desk = _desk(it, asking, items)
        if not desk.take_up(desk.known_before(find), pairs=_in_pairs(it.search)):
            self._next_phase(it, within_budget=False)
            return
        it.desk, it.asking, it.began = desk, asking, self._tools.clock.monotonic()
        it.refreshed = it.began

    def _go_on(self, it: _Open, desk: Desk) -> None:
        tools, moment = self._tools, self._tools.clock.monotonic()
        told = tools.watch.taken(it.run.id)
        due = moment - it.refreshed >= self._patience(it)
        asked = desk.awaited if due else [job_id for job_id in told if job_id]
        if due:
            it.refreshed = moment
        if asked:
            desk.looked_at(asked, tools.queue.get_many(asked))
        before = set(desk.awaited)
        desk.go_on(tools.queue.get_many, tools.jobs, tools.clock.now())
        it.unconsumed += desk.take_results()
        after = set(desk.awaited)
        tools.watch.add(sorted(after - before), it.run.id)
        tools.watch.remove(sorted(before - after))

    def _consume_some(self, it: _Open) -> None:
        """A few at a time, so that no call waits for it; who is left over at the end is consumed then."""
        some, it.unconsumed = it.unconsumed[:_CONSUMED_TOGETHER], it.unconsumed[_CONSUMED_TOGETHER:]
        self._tools.jobs.consume(some, self._tools.clock.now())

    def _patience(self, it: _Open) -> float:
        taken = (self._tools.clock.monotonic() - it.began) * _SHARE
        patience = min(max(taken, _SOONEST_SECONDS), _LATEST_SECONDS)
        seconds = it.budget.seconds
        return patience if seconds is None else min(patience, max(self._seconds_left(it, seconds), _MOMENT))

    def _is_late(self, it: _Open) -> bool:
        """Whether the budget's seconds are over; then calls under way are dropped."""
        seconds = it.budget.seconds
        if seconds is None or it.late:
            return it.late
        if self._seconds_left(it, seconds) > 0:
            return False
        self._tools.jobs.withdraw_all(it.run, Withdrawal.ALL, self._tools.clock.now())
        if it.desk is not None:
            it.desk.close(self._tools.queue.get_many)
        it.late = True
        return True

    def _seconds_left(self, it: _Open, seconds: float) -> float:
        """Of those that a budget has, to the end of the search or of the run."""
        keeps = it.search.phase is not Phase.HOLDOUT and bool(it.search.split.holdout)
        return (seconds * _TIME_TO_SEARCH if keeps else seconds) - it.progress.active(self._tools.clock.now())

    def _is_stale(self, it: _Open) -> bool:
        """Whether the last improvement is longer ago than the run's patience allows."""
        patience = it.terms.patience
        if patience is None or it.search.phase is not Phase.SEARCH or not it.search.points:
            return False
        best = [point["best"] for point in it.search.points]
        since = next((place for place, value in enumerate(best) if value == best[-1]), 0)
        return it.search.step - int(it.search.points[since]["step"]) > patience

    def _apply(self, it: _Open, desk: Desk) -> None:
        search = searches.applied(it.search, it.strategy, desk.answers)
        spent = _together(it.run.spent, desk.spent())
        search.seen = _learned(search.seen, desk)
        search.points = _with_point(search, spent)
        search.withheld = it.search.withheld + desk.withheld()
        if searches.has_proof(search) and not searches.has_proof(it.search):
            search.looks = self._looks.number(it.run)
        it.desk = None
        self._store(it, search, spent)

    def _next_phase(self, it: _Open, *, within_budget: bool) -> None:
        search, reason = it.search, None if within_budget else FinishReason.BUDGET
        if search.phase is Phase.CHECKS:
            lacking = reason is not None and search.baseline is None
            new = searches.ended(search, FinishReason.BUDGET) if lacking else self._checked(it)
        elif search.phase is Phase.SEARCH:
            assert search.state is not None
            told = it.strategy.done(search.state) or reason or FinishReason.NO_IMPROVEMENT
            new = searches.searched(search, it.strategy, told)
        else:
            new = searches.ended(search, FinishReason(search.finish or FinishReason.ITERATIONS))
        it.late = False
        self._store(it, replace(new, step=search.step + 1), it.run.spent)

    def _checked(self, it: _Open) -> Search:
        return searches.checked(it.search, it.strategy, it.terms)

    def _store(self, it: _Open, search: Search, spent: Mapping[str, Totals]) -> None:
        """The state first, then the head that names it."""
        now = self._tools.clock.now()
        state = searches.to_document(search)
        at = self._states.write(it.run.id, search.step, state, lambda: self._is_unchanged(it.run))
        progress = replace(
            it.progress,
            phase=search.phase,
            step=search.step,
            at=at,
            baseline=search.baseline,
            best=searches.best_mean(search),
            finish=search.finish,
        )
        run = replace(it.run, spent=spent, progress=progress)
        if search.phase is Phase.ENDED:
            self._tools.jobs.consume_all(run, now)
            run = self._ended(run, search, now)
        it.run = self._tools.write(run)
        assert it.run.progress is not None
        it.search, it.progress = search, it.run.progress

    def _is_unchanged(self, run: Run) -> bool:
        stored = self._tools.runs.get(run.id)
        return stored is not None and stored.revision == run.revision

    def _ended(self, run: Run, search: Search, now: datetime) -> Run:
        assert run.progress is not None
        if search.finish == FinishReason.ERROR:
            reason = f"too many answers have no score; the last one: {search.problem or 'unknown'}"
            return replace(failed(replace(run, progress=run.progress.stopped(now)), reason, now), lease=None)
        progress = self._proving.concluded(run, search, now)
        metadata = run.metadata.touched(now, OPTIMIZER)
        return replace(run, status=RunStatus.COMPLETED, progress=progress.stopped(now), lease=None, metadata=metadata)


def _in_pairs(search: Search) -> bool:
    """Whether two items of a plan belong together each: both prompts answer an example of the holdout."""
    return search.phase is Phase.HOLDOUT and not search.by_comparison


def _asking(it: _Open) -> Asking:
    return Asking(
        owner=owner_of(it.run),
        subject=it.subject,
        step=it.search.step,
        temperature=it.run.temperature,
        texts=searches.texts(it.search),
        state=it.search.state or headroom.state_of(it.search.setup),
    )


def _desk(it: _Open, asking: Asking, items: Sequence[Asked]) -> Desk:
    reserve = Reserve(asking, it.search.seen)
    used, kept = spent_of(it.run.spent.values()) + it.search.withheld, kept_back(it.search, reserve, it.budget)
    return Desk(asking, items, it.terms.max_parallel, Till(reserve, it.budget, used=used, kept=kept))


def owner_of(run: Run) -> Owner:
    return Owner(
        id=run.id,
        client_id=run.client_id,
        operation=OPERATION,
        planned_at=run.metadata.created_at,
        created_by=run.metadata.created_by,
        priority=run.priority,
        reference={"runId": run.id},
    )


def _together(spent: Mapping[str, Totals], more: Mapping[str, Totals]) -> dict[str, Totals]:
    whole = dict(spent)
    for role, totals in more.items():
        whole[role] = added(whole.get(role, Totals()), totals)
    return whole


def _learned(seen: Mapping[str, Seen], desk: Desk) -> dict[str, Seen]:
    new = dict(seen)
    for spec, job in desk.own_jobs():
        totals = paid(job)
        if totals.input_tokens:
            name = seen_name(spec.role, spec.model)
            new[name] = new.get(name, Seen()).learned(spec.characters, totals)
    return new


def _with_point(search: Search, spent: Mapping[str, Totals]) -> list[dict[str, object]]:
    """Every second one is left out where there are too many."""
    used: Need = spent_of(spent.values())
    point: dict[str, object] = {
        "step": search.step,
        "phase": str(search.phase),
        "calls": used.calls,
        "tokens": used.tokens,
        "amount": float(used.amount),
        "best": searches.best_mean(search),
    }
    points = [*search.points, point]
    return points if len(points) <= _MOST_POINTS else points[::2]
