"""Optimization runs: what was asked for, how far they are, and what may be done with them from outside."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import reduce
from typing import Any

from engine.errors import TransitionRefused
from engine.jobs.changes import added
from engine.jobs.job import Lease, Totals
from engine.llm import JsonObject
from engine.metadata import Metadata
from engine.records.searches import SearchProgress, SearchTerms

OPERATION = "optimize"
"""Of the jobs that a run makes."""

OPTIMIZER = "optimizer"
"""Who consumed, canceled or reopened a job, where a run's driver or a change of the run did it."""


class RunStatus(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Withdrawal(StrEnum):
    """Which of a run's jobs are to be taken back: those that wait, or those in flight too."""

    QUEUED = "queued"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """One job of the refinement. `working_prompt_id` is the prompt it tried, the first where there are several.

    `status` is the job's when it was looked at.
    """

    number: int
    job_id: str
    working_prompt_id: str
    status: str
    eval_result: JsonObject | None = None
    suggested_prompt_id: str | None = None
    totals: Totals = field(default=Totals())


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRun:
    """The iterations of one working model."""

    model: str
    iterations: tuple[Iteration, ...] = ()

    @property
    def totals(self) -> Totals:
        return sum_of(iteration.totals for iteration in self.iterations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as it is stored.

    `current_job_id` is the job that the next step waits for, chosen before it is inserted. `spent` is by the role of
    the calls: work, eval, meta. `withdrawal` says which jobs are still to be taken back; `discarded` that the record
    is deleted when they are. `pins` are the prompts as they were when it began, where it refines on one
    input. `search` and `progress` are set where it searches over a dataset; the model runs are then
    empty. `lease` is held by the replica that drives it.
    """

    id: str
    client_id: str
    initial_prompt_ids: tuple[str, ...]
    eval_prompt_id: str
    eval_model: str
    meta_prompt_id: str
    meta_model: str
    working_models: tuple[str, ...]
    max_iterations: int
    temperature: float
    priority: int
    request_data: JsonObject
    metadata: Metadata
    status: RunStatus = RunStatus.RUNNING
    current_model_index: int = 0
    current_iteration: int = 0
    current_job_id: str | None = None
    failure_reason: str | None = None
    model_runs: tuple[ModelRun, ...] = ()
    spent: Mapping[str, Totals] = field(default_factory=dict)
    withdrawal: Withdrawal | None = None
    discarded: bool = False
    pins: JsonObject = field(default_factory=dict)
    search: SearchTerms | None = None
    progress: SearchProgress | None = None
    lease: Lease | None = None
    revision: int = 0

    @property
    def is_open(self) -> bool:
        """Whether there is something left to do for whoever drives it."""
        return self.status is RunStatus.RUNNING or self.withdrawal is not None

    @property
    def totals(self) -> Totals:
        return sum_of(self.spent.values())


def sum_of(totals: Iterable[Totals]) -> Totals:
    """All of them added up."""
    return reduce(added, totals, Totals())


_CANCELABLE = frozenset({RunStatus.PENDING, RunStatus.RUNNING, RunStatus.PAUSED})


def paused(run: Run, withdrawal: Withdrawal, now: datetime, *, by: str) -> Run:
    """Raises TransitionRefused where it does not run."""
    _require(run, "paused", frozenset({RunStatus.RUNNING}))
    progress = None if run.progress is None else run.progress.stopped(now)
    return _changed(run, now, by, status=RunStatus.PAUSED, withdrawal=withdrawal, progress=progress)


def resumed(run: Run, now: datetime, *, by: str) -> Run:
    """To be driven by whoever looks first. Raises TransitionRefused where it is not paused."""
    _require(run, "resumed", frozenset({RunStatus.PAUSED}))
    progress = None if run.progress is None else replace(run.progress, active_since=now)
    return _changed(run, now, by, status=RunStatus.RUNNING, withdrawal=None, lease=None, progress=progress)


def cancelled(run: Run, now: datetime, *, by: str) -> Run:
    """Raises TransitionRefused where it has ended."""
    _require(run, "cancelled", _CANCELABLE)
    return _changed(run, now, by, status=RunStatus.CANCELLED, withdrawal=Withdrawal.ALL)


def discarded(run: Run, now: datetime, *, by: str) -> Run:
    """Deleted, at once where none of its jobs can be left in the queue."""
    if run.status in _CANCELABLE:
        return replace(cancelled(run, now, by=by), discarded=True)
    if run.withdrawal is not None or run.search is not None:
        return _changed(run, now, by, withdrawal=Withdrawal.ALL, discarded=True)
    return replace(run, metadata=run.metadata.deleted(now, by))


def failed(run: Run, reason: str, now: datetime) -> Run:
    return _changed(run, now, OPTIMIZER, status=RunStatus.FAILED, failure_reason=reason)


def withdrawn(run: Run, now: datetime) -> Run:
    """After its jobs have been taken back."""
    if run.discarded:
        return replace(run, withdrawal=None, metadata=run.metadata.deleted(now, run.metadata.updated_by))
    return replace(run, withdrawal=None)


def _require(run: Run, wanted: str, states: frozenset[RunStatus]) -> None:
    if run.status not in states:
        raise TransitionRefused(f"invalid status transition: a run that is {run.status} cannot be {wanted}")


def _changed(run: Run, now: datetime, by: str, **fields: Any) -> Run:
    return replace(run, metadata=run.metadata.touched(now, by), **fields)
