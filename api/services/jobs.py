"""What callers may do with jobs that exist. New ones are made in jobs_intake."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from api.services.job_edits import Editor, JobEdit, edited
from api.services.references import Catalogue, User, wanted_by
from engine.errors import NotFound, StorageUnavailable, UnknownReference
from engine.jobs.changes import deleted
from engine.jobs.job import Job
from engine.jobs.queue import JobQuery, JobQueue, Page, SummaryRow
from engine.jobs.signals import JobSignals
from engine.jobs.states import JobState, Surface
from utilities.clock import Clock

TRIES = 50
"""How often a change is read and written again because somebody else's came in between."""

Change = Callable[[Job], Job]
"""What a job shall become; the same object where nothing is to be written."""


class JobService:
    """Reads and changes jobs. A client sees its own ones, an admin all: others do not exist for it.

    Everything is synchronous. Changes are read, made and written back guarded by the revision, so that no concurrent
    change is lost; they raise StorageUnavailable where that did not succeed in TRIES rounds.
    """

    def __init__(self, queue: JobQueue, catalogue: Catalogue, signals: JobSignals, clock: Clock) -> None:
        self._queue = queue
        self._catalogue = catalogue
        self._signals = signals
        self._clock = clock

    def get(self, editor: Editor, job_id: str) -> Job:
        """Raises NotFound."""
        job = self._queue.get(job_id)
        if job is None or not _visible(job, editor):
            raise NotFound("Job", job_id)
        return job

    def list(self, query: JobQuery, page: Page) -> tuple[list[Job], int]:
        """A page of the matching jobs, and how many match in all."""
        jobs = self._queue.find(query, page)
        if len(jobs) < page.limit and (jobs or not page.skip):
            return jobs, page.skip + len(jobs)
        return jobs, self._queue.count(query)

    def summary(self, query: JobQuery) -> Sequence[SummaryRow]:
        return self._queue.summary(query)

    def edit(self, editor: Editor, job_id: str, edit: JobEdit, surface: Surface) -> Job:
        """The job after `edit`. Raises UnknownReference for a job that is not there, and as `edited` does."""
        return self.edit_many(editor, [(job_id, edit)], surface)[0]

    def edit_many(self, editor: Editor, edits: Sequence[tuple[str, JobEdit]], surface: Surface) -> Sequence[Job]:
        """The jobs after their edits, in the given order. Nothing is written unless all edits are possible.

        Several edits of one job follow one another. A job that changes between the check and the write is checked
        again: where its edit has become impossible by then, the others may have been written.
        """
        wishes: dict[str, list[JobEdit]] = {}
        for job_id, edit in edits:
            wishes.setdefault(job_id, []).append(edit)

        def change(job: Job, now: datetime) -> Job:
            for edit in wishes[job.id]:
                job = edited(job, edit, surface, editor, now)
            return job

        self._check_references(editor, wishes)
        done = self._changed(editor, list(wishes), change)
        return [done[job_id] for job_id, _ in edits]

    def delete(self, editor: Editor, job_id: str) -> None:
        """Raises NotFound."""
        self.get(editor, job_id)
        self._changed(editor, [job_id], lambda job, now: deleted(job, now, by=editor.by), gone_is_done=True)

    def delete_many(self, editor: Editor, job_ids: Sequence[str]) -> None:
        """Raises UnknownReference, and deletes nothing, where one of them is not there."""
        wanted = list(dict.fromkeys(job_ids))
        found = self._queue.get_many(wanted)
        for job_id in wanted:
            _require(found, editor, job_id)
        self._changed(editor, wanted, lambda job, now: deleted(job, now, by=editor.by), gone_is_done=True)

    def _check_references(self, editor: Editor, wishes: Mapping[str, Sequence[JobEdit]]) -> None:
        wanted = [wanted_by(edit.fields) for edits in wishes.values() for edit in edits]
        if any(one.prompts or one.models or one.evaluators for one in wanted):
            known = self._catalogue.known(wanted)
            for one in wanted:
                known.check(one, User(editor.by, any_prompt=editor.admin))

    def _changed(
        self, editor: Editor, job_ids: Sequence[str], change: Callable[[Job, datetime], Job], gone_is_done: bool = False
    ) -> dict[str, Job]:
        left, done = list(job_ids), dict[str, Job]()
        for _ in range(TRIES):
            now = self._clock.now()
            before = self._queue.get_many(left)
            if not gone_is_done:
                for job_id in left:
                    _require(before, editor, job_id)
            after = {job_id: change(before[job_id], now) for job_id in left if job_id in before}
            done |= self._written(before, after, now)
            left = [job_id for job_id in left if job_id in after and job_id not in done]
            if not left:
                return done
        raise StorageUnavailable(f"job {left[0]} is being changed by many at once")

    def _written(self, before: Mapping[str, Job], after: Mapping[str, Job], now: datetime) -> dict[str, Job]:
        """Those of `after` that now stand; the consumers of this process are told."""
        changed = [job for job_id, job in after.items() if job is not before[job_id]]
        written = self._queue.compare_and_set(changed, now) if changed else []
        stands = [job for job, ok in zip(changed, written, strict=True) if ok]
        for job in stands:
            if before[job.id].status is JobState.PROCESSING and (job.lease is None or job.metadata.is_deleted):
                self._signals.fenced(job.id)
        ready = [job for job in stands if job.status is JobState.PENDING and not job.metadata.is_deleted]
        if ready:
            self._signals.ready(ready)
        same = {job_id: job for job_id, job in after.items() if job is before[job_id]}
        return same | {job.id: replace(job, revision=job.revision + 1) for job in stands}


def _visible(job: Job, editor: Editor) -> bool:
    return editor.admin or job.client_id == editor.by


def _require(found: Mapping[str, Job], editor: Editor, job_id: str) -> Job:
    job = found.get(job_id)
    if job is None or not _visible(job, editor):
        raise UnknownReference("Job", job_id)
    return job
