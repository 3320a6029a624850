"""What the steps of runs are taken with."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.errors import LeaseLost
from engine.jobs.queue import JobQueue
from engine.records.runs import Run
from engine.records.store import RecordStore
from llm_optimizer.withdrawal import OwnJobs
from utilities.clock import Clock
from utilities.ids import ObjectIds


class Watch:
    """Which run waits for which job in this process, and which of them were told to have ended. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, str] = {}
        self._told: dict[str, list[str]] = {}

    def add(self, job_ids: Sequence[str], run_id: str) -> None:
        with self._lock:
            self._runs.update(dict.fromkeys(job_ids, run_id))

    def remove(self, job_ids: Sequence[str]) -> None:
        with self._lock:
            for job_id in job_ids:
                self._runs.pop(job_id, None)

    def forget(self, run_id: str) -> None:
        """Nobody waits for its jobs any more."""
        with self._lock:
            self._told.pop(run_id, None)
            for job_id in [job_id for job_id, waiting in self._runs.items() if waiting == run_id]:
                del self._runs[job_id]

    def tell(self, job_id: str) -> str | None:
        """The run that waits for the job that may have ended, if one does."""
        run_id = self._runs.get(job_id)
        if run_id is not None:
            with self._lock:
                self._told.setdefault(run_id, []).append(job_id)
        return run_id

    def taken(self, run_id: str) -> list[str]:
        """The jobs that were told since the last time."""
        with self._lock:
            return self._told.pop(run_id, [])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTools:
    runs: RecordStore[Run]
    queue: JobQueue
    jobs: OwnJobs
    clock: Clock
    ids: ObjectIds
    watch: Watch

    def write(self, run: Run) -> Run:
        """Stores it by its revision. Raises LeaseLost where somebody has changed it."""
        if not self.runs.compare_and_set(run):
            raise LeaseLost(f"run {run.id} was changed meanwhile")
        return replace(run, revision=run.revision + 1)
