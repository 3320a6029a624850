"""Evaluations of this replica, put together: what drives them."""

from collections.abc import Callable
from datetime import timedelta

from engine.driving import Driver
from engine.evaluation.measures import Measures
from engine.jobs.signals import JobSignals
from engine.records.dataset_items import DatasetItems
from engine.records.evaluations import Evaluation
from engine.records.store import Storage
from llm_optimizer.evaluating import EvaluationErrand, EvaluationTools
from llm_optimizer.run_tools import Watch
from llm_optimizer.withdrawal import OwnJobs
from utilities.clock import Clock


class Evaluations:
    """Drives what nobody else drives, from `start` to `close`."""

    def __init__(self, tools: EvaluationTools, driver: Driver[Evaluation], signals: JobSignals) -> None:
        self._tools = tools
        self._driver = driver
        self._signals = signals
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        self._unsubscribe = self._signals.on_settled(self._on_settled)
        self._driver.start()

    def wake(self, evaluation_id: str | None = None) -> None:
        """The stored evaluation is new or has changed: look at it now. Returns at once."""
        self._driver.wake(evaluation_id)

    def close(self) -> None:
        """Ends when the steps under way have ended."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._driver.close()
        self._tools.measures.close()

    def _on_settled(self, job_id: str) -> None:
        evaluation_id = self._tools.watch.tell(job_id)
        if evaluation_id is not None:
            self._driver.wake(evaluation_id)


def evaluation_tools(storage: Storage, signals: JobSignals, clock: Clock) -> EvaluationTools:
    """As a process that has just started has them."""
    return EvaluationTools(
        evaluations=storage.evaluations,
        parts=storage.evaluation_parts,
        items=DatasetItems(storage.dataset_parts),
        queue=storage.jobs,
        jobs=OwnJobs(storage.jobs, signals),
        measures=Measures(),
        clock=clock,
        watch=Watch(),
    )


def build_evaluations(
    storage: Storage, *, signals: JobSignals, clock: Clock, replica: str, lease: timedelta, poll: float
) -> Evaluations:
    """`replica` names this process in leases; see Driver for `lease` and `poll`."""
    tools = evaluation_tools(storage, signals, clock)
    errand = EvaluationErrand(tools)
    driver = Driver(errand, name="evaluations", owner=replica, clock=clock, lease=lease, poll=poll)
    return Evaluations(tools, driver, signals)
