"""The files that a batch's results are written to.

They have one writer. Whoever takes a batch over begins anew, in files of its own: a process that was frozen in between
writes on into files that nobody looks at any more. Before a batch ends the records of all others are changed, so that
their writers cannot publish them. They and files of a batch that was never stored go like uploads without an end.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from engine.batches.contents import Appending
from engine.batches.lines import Line, is_answered, result_line
from engine.errors import Duplicate, LeaseLost
from engine.jobs.job import Job
from engine.llm import Usage
from engine.metadata import Metadata
from engine.records.batches import Batch, Progress
from engine.records.files import BATCH_OUTPUT, FileContents, FileStatus, StoredFile
from engine.records.store import RecordStore
from utilities.clock import Clock
from utilities.ids import ObjectIds

_BY = "batch"
_KINDS = ("output", "error")


class Results:
    """What one process writes. From any thread, for one batch by one thread at a time."""

    def __init__(self, files: RecordStore[StoredFile], contents: FileContents, clock: Clock, ids: ObjectIds) -> None:
        self._files = files
        self._contents = contents
        self._clock = clock
        self._ids = ids
        self._ours: dict[str, list[StoredFile]] = {}

    def are_ours(self, batch: Batch) -> bool:
        """Whether this process began the files that the batch's results go to."""
        ours = tuple(file.id for file in self._ours.get(batch.id, ()))
        return bool(ours) and batch.result_file_ids[: len(ours)] == ours

    def begun(self, batch: Batch) -> Batch:
        """`batch`, to be stored, with nothing written yet."""
        now = self._clock.now()
        files = [self._new_file(batch, kind, now) for kind in _KINDS]
        for file in files:
            with suppress(Duplicate):  # its id is new: an earlier try of this very write came through
                self._files.add(file)
        self._ours[batch.id] = files
        ids = tuple(file.id for file in files)
        return replace(batch, result_file_ids=ids + batch.result_file_ids, progress=Progress(), usage=Usage())

    def written(self, batch: Batch, progress: Progress, lines: Sequence[Line], jobs: Sequence[Job | None]) -> Progress:
        """The progress with the results of the next lines in the files."""
        output, errors = (
            Appending(self._contents, file_id, size)
            for file_id, size in zip(batch.result_file_ids, (progress.output, progress.errors), strict=False)
        )
        for line, job in zip(lines, jobs, strict=True):
            target = output if is_answered(job) else errors
            target.add(result_line(batch.id, line, job, batch.ending))
        answered = sum(map(is_answered, jobs))
        return replace(
            progress,
            completed=progress.completed + answered,
            failed=progress.failed + len(lines) - answered,
            output=output.save(),
            errors=errors.save(),
        )

    def published(self, batch: Batch, now: datetime) -> Batch:
        """`batch`, to be stored, with its counts and the files that are not empty, which their owner sees from now on.

        Raises LeaseLost where they were given up meanwhile. May be repeated.
        """
        progress = batch.progress
        files = self._ours[batch.id]
        for file_id in batch.result_file_ids[len(files) :]:
            self._give_up(file_id, now)
        sizes = (progress.output, progress.errors)
        files[:] = [self._shown(batch, file, size, now) for file, size in zip(files, sizes, strict=True)]
        output, errors = (file.id if size else None for file, size in zip(files, sizes, strict=True))
        return replace(
            batch,
            completed=progress.completed,
            failed=progress.failed,
            output_file_id=output,
            error_file_id=errors,
        )

    def ended(self, batch: Batch) -> None:
        """It is not written any more."""
        self._ours.pop(batch.id, None)

    def _shown(self, batch: Batch, file: StoredFile, size: int, now: datetime) -> StoredFile:
        if size == 0 or file.status is FileStatus.PROCESSED:
            return file
        seconds = batch.output_seconds
        shown = replace(
            file,
            size=size,
            status=FileStatus.PROCESSED,
            metadata=Metadata(created_at=now, created_by=_BY),
            expires_at=None if seconds is None else now + timedelta(seconds=seconds),
        )
        if not self._files.compare_and_set(shown):
            self.ended(batch)
            raise LeaseLost(f"the results of batch {batch.id} were given up meanwhile")
        return replace(shown, revision=file.revision + 1)

    def _give_up(self, file_id: str, now: datetime) -> None:
        """Nobody sees it from now on, and its writer cannot publish it."""
        file = self._files.get(file_id)
        if file is None:
            return
        hidden = replace(file, status=FileStatus.UPLOADING, metadata=file.metadata.touched(now, _BY))
        if not self._files.compare_and_set(hidden):
            raise LeaseLost(f"file {file_id} was changed meanwhile")

    def _new_file(self, batch: Batch, kind: str, now: datetime) -> StoredFile:
        return StoredFile(
            id=f"file-{self._ids.new()}",
            client_id=batch.client_id,
            filename=f"{batch.id}_{kind}.jsonl",
            purpose=BATCH_OUTPUT,
            size=0,
            metadata=Metadata(created_at=now, created_by=_BY),
            status=FileStatus.UPLOADING,
        )
