"""Files whose time is over, and uploads that were never finished."""

import math
from dataclasses import replace
from datetime import datetime, timedelta

from engine.batches.errand import BatchTools
from engine.jobs.queue import Page
from engine.records.batches import OPEN
from engine.records.files import FileStatus, StoredFile
from engine.records.store import Where

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
            if _is_over(file, now) and not self._is_read(file):
                tools.files.compare_and_set(_deleted(file, now))
                tools.contents.drop(file.id)
        self._after = page[-1].id if len(page) == _PAGE else None
        return self._after is not None

    def _is_read(self, file: StoredFile) -> bool:
        status = [str(each) for each in OPEN]
        return self._tools.batches.count(Where(equals={"inputFileId": [file.id], "status": status})) > 0


def _is_over(file: StoredFile, now: datetime) -> bool:
    if file.status is FileStatus.UPLOADING:
        return file.metadata.created_at + _UPLOAD_TIME < now
    return file.expires_at is not None and file.expires_at <= now


def _deleted(file: StoredFile, now: datetime) -> StoredFile:
    return replace(file, metadata=file.metadata.deleted(now, "expiry"))
