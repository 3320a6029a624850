"""Evaluations of this replica, put together: what drives them."""

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
from llm_optimizer.woken import Woken
from utilities.clock import Clock


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
) -> Woken[Evaluation]:
    """`replica` names this process in leases; see Driver for `lease` and `poll`."""
    tools = evaluation_tools(storage, signals, clock)
    errand = EvaluationErrand(tools)
    driver = Driver(errand, name="evaluations", owner=replica, clock=clock, lease=lease, poll=poll)
    return Woken(driver, tools.watch, signals, tools.measures.close)
