"""How files go: those whose time is over, uploads that were never finished, and what their owners delete."""

import math
from dataclasses import replace
from datetime import datetime, timedelta

from engine.batches.errand import BatchTools
from engine.jobs.queue import Page
from engine.records.batches import OPEN, Batch
from engine.records.files import FileContents, FileStatus, StoredFile
from engine.records.store import RecordStore, Where

_EVERY = 600.0
_PAGE = 500
_UPLOAD_TIME = timedelta(hours=6)


class Sweeper:
    """Looks through all files every ten minutes, a page at a time. Any number of replicas may do so."""

    def __init__(self, tools: BatchTools) -> None:
        self._tools = tools
        self._after: str | None = None
        self._look_at = -math.inf

    def tick(self) -> float:
        """From any one thread; raises StorageUnavailable. Seconds until it is due again."""
        now = self._tools.clock.monotonic()
        if now >= self._look_at:
            more = self.sweep()
            self._look_at = now + (1.0 if more else _EVERY)
        return self._look_at - now

    def sweep(self) -> bool:
        """Removes what is over among the next page of files; whether there is another one."""
        tools, now = self._tools, self._tools.clock.now()
        page = tools.files.find(Where(after=self._after), Page(limit=_PAGE))
        for file in page:
            if _is_over(file, now) and not is_read(tools.batches, file.id):
                removed(tools.files, tools.contents, file, now)
        self._after = page[-1].id if len(page) == _PAGE else None
        return self._after is not None


def is_read(batches: RecordStore[Batch], file_id: str) -> bool:
    """Whether a batch that has not ended needs the file."""
    status = [str(each) for each in OPEN]
    return batches.count(Where(equals={"inputFileId": [file_id], "status": status})) > 0


def removed(files: RecordStore[StoredFile], contents: FileContents, file: StoredFile, now: datetime) -> None:
    """Nobody sees it from the first write on; the record goes last, so that whatever is left is found by a sweep.

    Does nothing where somebody has changed the record.
    """
    hidden = replace(file, status=FileStatus.UPLOADING, metadata=file.metadata.touched(now, "removal"))
    if not files.compare_and_set(hidden):
        return
    contents.drop(file.id)
    gone = replace(hidden, revision=hidden.revision + 1, metadata=hidden.metadata.deleted(now, "removal"))
    files.compare_and_set(gone)


def _is_over(file: StoredFile, now: datetime) -> bool:
    if file.status is FileStatus.UPLOADING:
        return (file.metadata.updated_at or file.metadata.created_at) + _UPLOAD_TIME < now
    return file.expires_at is not None and file.expires_at <= now
