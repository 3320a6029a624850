"""What is done for a batch: implements engine.driving.Errand.

Every step is repeated harmlessly after a crash. Jobs have ids that follow from the first one's, so that inserting them
again does nothing; whoever takes the writing of results over begins it anew, in files of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from engine.batches.contents import pieces
from engine.batches.lines import MOST_TEXT_LINES, Line, Lines, Validation, line_of
from engine.batches.results import Results
from engine.errors import LeaseLost, StorageCorrupt
from engine.jobs.changes import after_event
from engine.jobs.job import Job, Lease
from engine.jobs.queue import JobQuery, JobQueue, Page
from engine.jobs.references import reference_text
from engine.jobs.signals import JobSignals
from engine.jobs.states import Event, JobState
from engine.llm import Usage
from engine.metadata import Metadata
from engine.records.batches import OPEN, OPERATION, Batch, BatchProblem, BatchStatus, Progress
from engine.records.files import FileContents, StoredFile
from engine.records.store import RecordStore, Where
from engine.records.values import Model
from utilities.clock import Clock
from utilities.ids import ObjectIds

SLICE = 500
SLICE_BYTES = 32 * 1024 * 1024
"""What is dealt with between two saves: so many lines, or as many as have so many bytes."""

_MOST_BATCHES = 10_000
_BY = "batch"
_LIVE = (JobState.PENDING, JobState.PROCESSING)
_ANSWERED = (JobState.PROCESSED, JobState.CONSUMED, JobState.ERROR_CONSUMING)
_SOONEST = 0.5
_LATEST = 30.0
_SHARE = 20
"""Counting takes a twentieth of the time at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTools:
    """What steps are taken with."""

    batches: RecordStore[Batch]
    files: RecordStore[StoredFile]
    contents: FileContents
    models: RecordStore[Model]
    queue: JobQueue
    signals: JobSignals
    clock: Clock
    ids: ObjectIds
    slice: int = SLICE

    def write(self, batch: Batch) -> Batch:
        """Stores it by its revision. Raises LeaseLost where somebody has changed it."""
        if not self.batches.compare_and_set(batch):
            raise LeaseLost(f"batch {batch.id} was changed meanwhile")
        return replace(batch, revision=batch.revision + 1)


class BatchErrand:
    """One step of a batch at a time."""

    def __init__(self, tools: BatchTools) -> None:
        self._tools = tools
        self._results = Results(tools.files, tools.contents, tools.clock, tools.ids)
        self._unsaved: dict[str, list[str]] = {}

    def unfinished(self) -> Sequence[Batch]:
        return self._tools.batches.find(
            Where(equals={"status": [str(status) for status in OPEN]}), Page(limit=_MOST_BATCHES)
        )

    def get(self, record_id: str) -> Batch | None:
        batch = self._tools.batches.get(record_id)
        self._take_back_unsaved(record_id, batch)
        return batch if batch is not None and batch.is_open else None

    def held(self, record: Batch, lease: Lease | None) -> Batch:
        return self._tools.write(replace(record, lease=lease))

    def step(self, record: Batch) -> float | None:
        try:
            return self._stepped(record)
        except StorageCorrupt as error:
            return self._failed(record, str(error))

    def _failed(self, batch: Batch, why: str) -> float | None:
        """What can still be taken back is, before the batch ends."""
        tools, now = self._tools, self._tools.clock.now()
        problem = BatchProblem(code="file_not_found", message=why, param="input_file_id")
        failed = replace(batch, ending=BatchStatus.FAILED, problems=(problem,))
        if batch.withdrawn or batch.first_job_id is None:
            tools.write(_ended(failed, now))
            return None
        tools.write(_finalizing(failed, now))
        return 0.0

    def _stepped(self, record: Batch) -> float | None:
        if record.status is BatchStatus.VALIDATING:
            return self._validate(record)
        if record.status is BatchStatus.IN_PROGRESS:
            return self._go_on(record)
        if not record.withdrawn:
            return self._withdraw(record)
        if record.ending is BatchStatus.FAILED:
            self._tools.write(_ended(record, self._tools.clock.now()))
            return None
        return self._finalize(record)

    def _validate(self, batch: Batch) -> float | None:
        tools, now = self._tools, self._tools.clock.now()
        validation = Validation(batch.endpoint, self._is_model)
        file = self._input(batch)
        if file is None:
            validation.fault("file_not_found", "the input file is gone", "input_file_id", None)
        else:
            self._judge(file, validation)
        if validation.problems:
            problems = tuple(validation.problems)
            tools.write(_ended(replace(batch, ending=BatchStatus.FAILED, problems=problems), now))
            return None
        tools.write(
            replace(
                batch,
                status=BatchStatus.IN_PROGRESS,
                in_progress_at=now,
                total=validation.total,
                model=validation.model,
                first_job_id=tools.ids.block(validation.total)[0],
            )
        )
        return 0.0

    def _judge(self, file: StoredFile, validation: Validation) -> None:
        for number, text in self._texts(file, Lines(), validation):
            validation.take(number, text)
            if validation.full:
                return
        validation.ended()

    def _texts(self, file: StoredFile, lines: Lines, validation: Validation) -> Iterator[tuple[int, bytes]]:
        """The lines that are not blank, with their numbers; one too long or too many is a fault and the last."""
        number = 0
        for piece in pieces(self._tools.contents, file):
            for text in lines.fed(piece):
                number += 1
                if number > MOST_TEXT_LINES:
                    message = f"the file has more than {MOST_TEXT_LINES} lines, blank ones among them"
                    validation.fault("too_many_lines", message, None, number)
                    return
                if text.strip():
                    yield number, text
            if lines.too_long:
                validation.fault("line_too_long", "this line is longer than 8 MiB", None, number + 1)
                return
        rest = lines.last()
        if rest.strip():
            yield number + 1, rest

    def _is_model(self, name: str) -> bool:
        return self._tools.models.count(Where(equals={"name": [name]})) > 0

    def _go_on(self, batch: Batch) -> float | None:
        tools, now = self._tools, self._tools.clock.now()
        if now >= batch.expires_at:
            tools.write(_finalizing(replace(batch, ending=BatchStatus.EXPIRED), now))
            return 0.0
        if batch.inserted < batch.total:
            return self._insert(batch, now)
        started = tools.clock.monotonic()
        counts = self._counts(batch)
        took = tools.clock.monotonic() - started
        if not any(counts.get(status) for status in _LIVE):
            tools.write(replace(_finalizing(batch, now), withdrawn=True))
            return 0.0
        completed = sum(counts.get(status, 0) for status in _ANSWERED)
        failed = sum(counts.values()) - completed - sum(counts.get(status, 0) for status in _LIVE)
        if (completed, failed) != (batch.completed, batch.failed):
            tools.write(replace(batch, completed=completed, failed=failed))
        return min(max(_SOONEST, _SHARE * took), _LATEST, (batch.expires_at - now).total_seconds())

    def _counts(self, batch: Batch) -> dict[JobState, int]:
        query = JobQuery(client_id=batch.client_id, operation=OPERATION, references=_reference(batch))
        counts: dict[JobState, int] = {}
        for row in self._tools.queue.summary(query):
            counts[row.status] = counts.get(row.status, 0) + row.count
        return counts

    def _insert(self, batch: Batch, now: datetime) -> float:
        tools = self._tools
        lines, progress = self._slice(batch)
        jobs = [
            _job_of(batch, job_id, line, now)
            for job_id, line in zip(_ids(batch, batch.inserted, len(lines)), lines, strict=True)
        ]
        self._unsaved[batch.id] = [job.id for job in jobs]
        try:
            tools.queue.insert(jobs)
            tools.write(replace(batch, inserted=batch.inserted + len(lines), progress=progress))
        except LeaseLost:
            self._take_back_unsaved(batch.id, tools.batches.get(batch.id))
            raise
        del self._unsaved[batch.id]
        tools.signals.ready(jobs)
        return 0.0

    def _take_back_unsaved(self, batch_id: str, current: Batch | None) -> None:
        """Cancels jobs that came too late: whoever ended their batch meanwhile may have looked for them before.

        Where the batch still goes on, whoever drives it makes the same ones. Raises LeaseLost where it is to be done
        again.
        """
        if batch_id not in self._unsaved:
            return
        if current is None or current.status is not BatchStatus.IN_PROGRESS:
            jobs = self._tools.queue.get_many(self._unsaved[batch_id])
            if not self._stopped(jobs.values()):
                raise LeaseLost(f"jobs of batch {batch_id} were changed meanwhile")
        del self._unsaved[batch_id]

    def _slice(self, batch: Batch) -> tuple[list[Line], Progress]:
        """The next lines, and the progress when they are dealt with. Raises StorageCorrupt where the input is gone."""
        progress, file = batch.progress, self._input(batch)
        if file is None:
            raise StorageCorrupt(f"the input file of batch {batch.id} is gone")
        cutter, number = Lines(progress.offset), progress.lines
        found: list[Line] = []
        for text in _all_texts(cutter, pieces(self._tools.contents, file, progress.offset)):
            number += 1
            if text.strip():
                found.append(line_of(number, text))
            if len(found) == self._tools.slice or cutter.offset - progress.offset >= SLICE_BYTES:
                break
        requests = progress.requests + len(found)
        return found, replace(progress, lines=number, requests=requests, offset=cutter.offset)

    def _input(self, batch: Batch) -> StoredFile | None:
        """Also one that has expired meanwhile: its content stays until the batch has ended."""
        return self._tools.files.get(batch.input_file_id)

    def _withdraw(self, batch: Batch) -> float:
        """Cancels what has no result yet, a slice at a time; nothing is inserted any more."""
        tools, done = self._tools, batch.progress.requests
        made = min(batch.inserted + tools.slice, batch.total)  # a slice may have been inserted and not been counted
        ids = _ids(batch, done, min(tools.slice, made - done))
        if ids and not self._stopped(tools.queue.get_many(ids).values()):
            return 0.0
        done += len(ids)
        is_last = done >= made
        tools.write(replace(batch, progress=Progress() if is_last else Progress(requests=done), withdrawn=is_last))
        return 0.0

    def _stopped(self, jobs: Iterable[Job]) -> bool:
        """Cancels those that have no end yet; False where one of them was changed meanwhile."""
        tools, now = self._tools, self._tools.clock.now()
        canceled = [after_event(job, Event.CANCEL, now, by=_BY) for job in jobs if job.status in _LIVE]
        written = tools.queue.compare_and_set(canceled, now) if canceled else []
        for job, was_written in zip(canceled, written, strict=True):
            if was_written:
                tools.signals.fenced(job.id)
        return all(written)

    def _finalize(self, batch: Batch) -> float | None:
        """Writes the results of the next lines, in the input's order."""
        tools, done = self._tools, batch.progress.requests
        if not self._results.are_ours(batch):
            tools.write(self._results.begun(batch))
            return 0.0
        if done >= batch.total:
            now = tools.clock.now()
            tools.write(_ended(self._results.published(batch, now), now))
            self._results.ended(batch)
            return None
        lines, progress = self._slice(batch)
        ids = _ids(batch, done, len(lines))
        found = tools.queue.get_many(ids)
        if not self._stopped(found.values()):
            return 0.0
        found = found if not any(job.status in _LIVE for job in found.values()) else tools.queue.get_many(ids)
        jobs = [found.get(job_id) for job_id in ids]
        progress = self._results.written(batch, progress, lines, jobs)
        tools.write(replace(batch, usage=_added(batch.usage, jobs), progress=progress))
        return 0.0


def _job_of(batch: Batch, job_id: str, line: Line, now: datetime) -> Job:
    return Job(
        id=job_id,
        client_id=batch.client_id,
        operation=OPERATION,
        working_prompts=(),
        model=line.model,
        temperature=0.0,
        priority=batch.priority,
        request_data=line.body,
        metadata=Metadata(created_at=now, created_by=_BY),
        client_job_id=line.custom_id,
        client_reference={"batchId": batch.id},
        response_format="text",
        endpoint=batch.endpoint,
    )


def _reference(batch: Batch) -> tuple[str, ...]:
    return (reference_text("batchId", batch.id),)


def _ids(batch: Batch, first: int, count: int) -> list[str]:
    """The ids of the jobs of `count` lines from the one of that place on."""
    if batch.first_job_id is None:
        return []
    start = int(batch.first_job_id, 16) + first
    return [f"{number:024x}" for number in range(start, start + max(count, 0))]


def _finalizing(batch: Batch, now: datetime) -> Batch:
    return replace(batch, status=BatchStatus.FINALIZING, finalizing_at=now, progress=Progress())


_AT: dict[BatchStatus, Callable[[Batch, datetime], Batch]] = {
    BatchStatus.COMPLETED: lambda batch, now: replace(batch, completed_at=now),
    BatchStatus.FAILED: lambda batch, now: replace(batch, failed_at=now),
    BatchStatus.EXPIRED: lambda batch, now: replace(batch, expired_at=now),
    BatchStatus.CANCELLED: lambda batch, now: replace(batch, cancelled_at=now),
}


def _ended(batch: Batch, now: datetime) -> Batch:
    ended = replace(batch, status=batch.ending, lease=None, metadata=batch.metadata.touched(now, _BY))
    return _AT[batch.ending](ended, now)


def _added(usage: Usage, jobs: Iterable[Job | None]) -> Usage:
    """`usage` and that of all calls that were made for the jobs."""
    calls = [call for job in jobs if job is not None for attempt in job.ledger for call in attempt.calls]
    return Usage(
        input_tokens=usage.input_tokens + sum(call.input_tokens or 0 for call in calls),
        output_tokens=usage.output_tokens + sum(call.output_tokens or 0 for call in calls),
        cached_input_tokens=usage.cached_input_tokens + sum(call.cached_input_tokens or 0 for call in calls),
        reasoning_tokens=usage.reasoning_tokens + sum(call.reasoning_tokens or 0 for call in calls),
    )


def _all_texts(cutter: Lines, content: Iterable[bytes]) -> Iterator[bytes]:
    """All lines, the one without an end at last."""
    for piece in content:
        yield from cutter.fed(piece)
    rest = cutter.last()
    if rest:
        yield rest
