"""Taking jobs back from the queue, and giving them back to it."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from engine.errors import StorageUnavailable
from engine.jobs.changes import after_event
from engine.jobs.job import Job
from engine.jobs.queue import JobQuery, JobQueue, Page
from engine.jobs.references import reference_text
from engine.jobs.signals import JobSignals
from engine.jobs.states import Event, JobState
from engine.records.runs import OPTIMIZER, Run, Withdrawal

_TRIES = 50
_PAGE = 1_000
_SOURCES = {
    Withdrawal.QUEUED: frozenset({JobState.PENDING}),
    Withdrawal.ALL: frozenset({JobState.PENDING, JobState.PROCESSING}),
}


class OwnJobs:
    """Changes jobs that this process's optimizer made, as their owner. Synchronous; raises StorageUnavailable."""

    def __init__(self, queue: JobQueue, signals: JobSignals) -> None:
        self._queue = queue
        self._signals = signals

    def withdraw(self, job_ids: Sequence[str], withdrawal: Withdrawal, now: datetime) -> None:
        """Cancels those that wait, and with ALL those in flight too: their calls are abandoned."""
        sources = _SOURCES[withdrawal]
        for _ in range(_TRIES):
            found = [job for job in self._queue.get_many(job_ids).values() if job.status in sources]
            if not found or self._changed(found, Event.CANCEL, now):
                return
        raise StorageUnavailable("jobs are being changed by many at once")

    def withdraw_all(self, run: Run, withdrawal: Withdrawal, now: datetime) -> None:
        """The same for all of a run's jobs. What a process that does not know of it inserts later stays."""
        if run.current_job_id is not None:
            self.withdraw([run.current_job_id], withdrawal, now)
        if run.search is not None:
            self.withdraw_of(run.client_id, _reference(run), withdrawal, now)

    def withdraw_of(self, client_id: str, reference: str, withdrawal: Withdrawal, now: datetime) -> None:
        """The same for all of a client's jobs with that reference."""
        for status in sorted(_SOURCES[withdrawal]):
            query = JobQuery(client_id=client_id, status=status, references=(reference,))
            for _ in range(_TRIES):
                found = self._queue.find(query, Page(limit=_PAGE))
                self.withdraw([job.id for job in found], withdrawal, now)
                if len(found) < _PAGE:
                    break

    def consume(self, jobs: Iterable[Job], now: datetime) -> bool:
        """Whether all of them stand as consumed by the optimizer; False: look at them again."""
        return self._changed([job for job in jobs if job.status is JobState.PROCESSED], Event.CONSUME, now)

    def consume_all(self, run: Run, now: datetime) -> None:
        """Consumes the results of a run that nobody has consumed yet."""
        self.consume_of(run.client_id, _reference(run), now)

    def consume_of(self, client_id: str, reference: str, now: datetime) -> None:
        """The same for all of a client's jobs with that reference."""
        query = JobQuery(client_id=client_id, status=JobState.PROCESSED, references=(reference,))
        for _ in range(_TRIES):
            found = self._queue.find(query, Page(limit=_PAGE))
            self.consume(found, now)
            if len(found) < _PAGE:
                return

    def reopen(self, jobs: Iterable[Job], now: datetime) -> None:
        """Puts canceled jobs back into the queue."""
        self._changed([job for job in jobs if job.status is JobState.CANCELED], Event.REOPEN, now)

    def insert(self, jobs: Sequence[Job]) -> None:
        """Stores them, which does nothing where they exist, and tells whoever works here."""
        self._queue.insert(jobs)
        self._signals.ready(jobs)

    def _changed(self, jobs: Sequence[Job], event: Event, now: datetime) -> bool:
        after = [after_event(job, event, now, by=OPTIMIZER) for job in jobs]
        written = self._queue.compare_and_set(after, now) if after else []
        for before, ok in zip(jobs, written, strict=True):
            if ok and before.status is JobState.PROCESSING:
                self._signals.fenced(before.id)
        if event is Event.REOPEN:
            self._signals.ready([job for job, ok in zip(after, written, strict=True) if ok])
        return all(written)


def _reference(run: Run) -> str:
    return reference_text("runId", run.id)
