"""What is done for a run: implements engine.driving.Errand."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from engine.jobs.job import Job, Lease
from engine.jobs.queue import Page
from engine.records.runs import Run, RunStatus, Withdrawal, withdrawn
from engine.records.store import Where
from llm_optimizer.refinement import after, after_gone, awaited, is_result, job_of, was_dropped
from llm_optimizer.run_tools import RunTools
from llm_optimizer.searching import Searching

_MOST_RUNS = 10_000
_SOONEST = timedelta(seconds=0.1)
_LATEST = timedelta(seconds=2)
_SHARE = 10
"""A job that another replica works on is asked for after a tenth of the time for which it has been waited."""


class RunErrand:
    """One step of a run at a time. Everything is repeated harmlessly after a crash: a job's id is stored before the
    job is, and a result is consumed before the run goes on, which a consumed result does not keep from going on."""

    def __init__(self, tools: RunTools, searching: Searching) -> None:
        self._tools = tools
        self._searching = searching

    def unfinished(self) -> Sequence[Run]:
        return self._tools.runs.find(Where(equals={"open": [True]}), Page(limit=_MOST_RUNS))

    def get(self, record_id: str) -> Run | None:
        run = self._tools.runs.get(record_id)
        return run if run is not None and run.is_open else None

    def held(self, record: Run, lease: Lease | None) -> Run:
        return self._tools.write(replace(record, lease=lease))

    def step(self, record: Run) -> float | None:
        if record.withdrawal is not None:
            self._withdraw(record, record.withdrawal)
            return None
        return self._refine(record) if record.search is None else self._searching.step(record)

    def _withdraw(self, run: Run, withdrawal: Withdrawal) -> None:
        """A run that is taken up again later is anybody's."""
        tools, now = self._tools, self._tools.clock.now()
        self._searching.forget(run.id)
        tools.watch.forget(run.id)
        tools.jobs.withdraw_all(run, withdrawal, now)
        if run.status is not RunStatus.PAUSED:
            tools.jobs.consume_all(run, now)
        if run.discarded:
            self._searching.discard(run)
        tools.write(replace(withdrawn(run, now), lease=None))

    def _refine(self, run: Run) -> float | None:
        tools, now = self._tools, self._tools.clock.now()
        job_id = run.current_job_id or tools.ids.new()
        if run.current_job_id is None:
            run = tools.write(replace(run, current_job_id=job_id))
        tools.watch.add([job_id], run.id)
        job = self._job(run, job_id, now)
        if job is not None and was_dropped(job):
            tools.jobs.reopen([job], now)
            return 0.0
        if job is not None and awaited(job):
            return _patience(job, now)
        if job is not None and is_result(job) and not tools.jobs.consume([job], now):
            return 0.0
        tools.watch.remove([job_id])
        return self._advanced(run, job, now)

    def _job(self, run: Run, job_id: str, now: datetime) -> Job | None:
        """The current job, inserted where it was not yet; None where it was deleted."""
        found = self._tools.queue.get(job_id)
        if found is not None:
            return found
        self._tools.jobs.insert([job_of(run, job_id, now)])
        return self._tools.queue.get(job_id)

    def _advanced(self, run: Run, job: Job | None, now: datetime) -> float | None:
        tools = self._tools
        next_run = after_gone(run, now) if job is None else after(run, job, tools.ids.new(), now)
        if next_run.status is not RunStatus.RUNNING:
            tools.write(replace(next_run, lease=None))
            return None
        run = tools.write(next_run)
        assert run.current_job_id is not None
        tools.watch.add([run.current_job_id], run.id)
        tools.jobs.insert([job_of(run, run.current_job_id, now)])
        return _SOONEST.total_seconds()


def _patience(job: Job, now: datetime) -> float:
    """In how many seconds to look again: a job that ends in this process tells so itself."""
    waited = (now - job.metadata.created_at) / _SHARE
    return min(max(waited, _SOONEST), _LATEST).total_seconds()
