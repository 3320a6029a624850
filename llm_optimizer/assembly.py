"""The optimizer, put together: what drives the runs of this replica, and what the API asks of it."""

from dataclasses import replace
from datetime import timedelta

from engine.driving import Driver
from engine.jobs.signals import JobSignals
from engine.llm import JsonObject
from engine.records.evaluations import Evaluation
from engine.records.pinning import pinned
from engine.records.runs import Run
from engine.records.store import PromptStore, Storage
from engine.records.values import PromptFlow
from llm_optimizer.canaries import build_canaries
from llm_optimizer.evaluations import build_evaluations
from llm_optimizer.looks import Looks
from llm_optimizer.proving import Proving
from llm_optimizer.refinement import job_of
from llm_optimizer.report import prompts_to_show, report_of
from llm_optimizer.run_errand import RunErrand
from llm_optimizer.run_tools import RunTools, Watch
from llm_optimizer.search_store import StateStore
from llm_optimizer.searching import Searching
from llm_optimizer.stored_subjects import StoredSubjects
from llm_optimizer.strategies.registry import Strategies
from llm_optimizer.subject import Subjects
from llm_optimizer.withdrawal import OwnJobs
from llm_optimizer.woken import Woken
from utilities.clock import Clock
from utilities.ids import ObjectIds


class Optimizer:
    """Implements engine.records.control.RunControl, whether or not it was started."""

    def __init__(
        self,
        tools: RunTools,
        searching: Searching,
        runs: Woken[Run],
        *,
        prompts: PromptStore,
        evaluations: Woken[Evaluation],
        canaries: Woken[PromptFlow],
    ) -> None:
        self._tools = tools
        self._prompts = prompts
        self._searching = searching
        self._runs = runs
        self._evaluations = evaluations
        self._canaries = canaries

    def start(self) -> None:
        """From now on the runs, evaluations and canaries that nobody else drives go on here."""
        self._runs.start()
        self._evaluations.start()
        self._canaries.start()

    def close(self) -> None:
        """Ends when the steps under way have ended."""
        self._runs.close()
        self._evaluations.close()
        self._canaries.close()

    def begin(self, run: Run) -> Run:
        if run.search is not None:
            return self._begin_search(run)
        chosen = self._tools.ids.new()
        used = (*run.initial_prompt_ids, run.eval_prompt_id, run.meta_prompt_id)
        found = self._prompts.get_many(list(dict.fromkeys(used)))
        begun = replace(run, current_job_id=chosen, pins=pinned(found.values(), "initialWorkingPromptIds"))
        self._tools.runs.add(begun)
        self._tools.jobs.insert([job_of(begun, chosen, begun.metadata.created_at)])
        self._runs.wake()
        return begun

    def _begin_search(self, run: Run) -> Run:
        begun = self._searching.begun(run)
        self._tools.runs.add(begun)
        self._runs.wake()
        return begun

    def withdraw(self, run: Run) -> None:
        if run.withdrawal is not None:
            self._tools.jobs.withdraw_all(run, run.withdrawal, self._tools.clock.now())
        self._runs.wake(run.id)

    def promote(self, run: Run, *, by: str, force: bool) -> Run:
        return self._searching.promoted(run, by=by, force=force)

    def report(self, run: Run) -> JsonObject:
        if run.search is not None:
            return self._searching.report(run)
        names = prompts_to_show(run)
        kept = {name: str(run.pins[name]["text"]) for name in names if name in run.pins}
        found = self._prompts.get_many([name for name in names if name not in kept])
        return report_of(run, prompts={**kept, **{name: prompt.text for name, prompt in found.items()}})

    def wake(self, run_id: str) -> None:
        self._runs.wake(run_id)

    def wake_evaluation(self, evaluation_id: str | None) -> None:
        self._evaluations.wake(evaluation_id)


def build_searching(storage: Storage, tools: RunTools, subjects: Subjects | None = None) -> Searching:
    """`subjects` None: prompts, dataset and evaluator are those of the storage."""
    states = StateStore(storage.run_parts, tools.clock)
    known = subjects or StoredSubjects(storage)
    proving, looks = Proving(storage.prompts), Looks(storage.runs, storage.run_parts, tools.clock)
    return Searching(tools, known, states=states, strategies=Strategies(), proving=proving, looks=looks)


def build_optimizer(
    storage: Storage,
    *,
    signals: JobSignals,
    clock: Clock,
    ids: ObjectIds,
    replica: str,
    subjects: Subjects | None = None,
    lease: timedelta = timedelta(seconds=30),
    poll: float = 1.0,
) -> Optimizer:
    """`replica` names this process in leases; see Driver for `lease` and `poll`."""
    tools = RunTools(
        runs=storage.runs,
        queue=storage.jobs,
        jobs=OwnJobs(storage.jobs, signals),
        clock=clock,
        ids=ids,
        watch=Watch(),
    )
    searching = build_searching(storage, tools, subjects)
    driver = Driver(RunErrand(tools, searching), name="optimizer", owner=replica, clock=clock, lease=lease, poll=poll)
    evaluations = build_evaluations(storage, signals=signals, clock=clock, replica=replica, lease=lease, poll=poll)
    canaries = build_canaries(storage, signals=signals, clock=clock, replica=replica, lease=lease, poll=poll)
    runs = Woken(driver, tools.watch, signals, searching.close)
    return Optimizer(tools, searching, runs, prompts=storage.prompts, evaluations=evaluations, canaries=canaries)
