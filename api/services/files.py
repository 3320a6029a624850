"""Files of OpenAI's files API: uploaded piece by piece, listed, read and deleted by their owners."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from api.core.unprocessable import KeyReused
from api.services.idempotency import IdempotencyKeys, RequestKey
from engine.batches.contents import Appending, pieces
from engine.batches.sweeping import is_read, removed
from engine.errors import InvalidField, MetasyncError, NotFound, Refused, StorageUnavailable
from engine.jobs.queue import JobQueue, Page
from engine.metadata import Metadata
from engine.records.batches import Batch
from engine.records.files import BATCH, FileContents, FileStatus, StoredFile
from engine.records.store import RecordStore, Where
from utilities.clock import Clock
from utilities.ids import ObjectIds

LARGEST = 200 * 1024 * 1024
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
LONGEST_FILENAME = 1000
_BATCH_KEPT = timedelta(days=30)
_SHORTEST, _LONGEST = 3600, 2_592_000


class TooLarge(MetasyncError):
    """The content is over a limit; nothing of it is kept."""

    code = "too_large"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTerms:
    """What an upload's form says beside the content. `seconds` is how long it is to be kept; None: as is usual."""

    filename: str
    purpose: str
    seconds: int | None = None


class Upload:
    """A content that is coming in. Synchronous; for one thread at a time."""

    def __init__(self, file: StoredFile, contents: FileContents) -> None:
        self.file = file
        self._writing = Appending(contents, file.id)
        self._digest = hashlib.sha256()

    @property
    def size(self) -> int:
        return self._writing.size

    def add(self, data: bytes) -> None:
        """Raises TooLarge."""
        if self._writing.size + len(data) > LARGEST:
            raise TooLarge(f"The file is larger than {LARGEST // 1024 // 1024} MB")
        self._digest.update(data)
        self._writing.add(data)

    def save(self) -> str:
        """The content's fingerprint, when all of it is durable."""
        self._writing.save()
        return self._digest.hexdigest()


class FileService:
    """Synchronous. A client sees its own files; an admin, who has none, reads everybody's."""

    def __init__(
        self,
        files: RecordStore[StoredFile],
        contents: FileContents,
        batches: RecordStore[Batch],
        queue: JobQueue,
        *,
        clock: Clock,
        ids: ObjectIds,
    ) -> None:
        self._files = files
        self._contents = contents
        self._batches = batches
        self._keys = IdempotencyKeys(queue)
        self._clock = clock
        self._ids = ids

    def begin(self, owner: str, by: str) -> Upload:
        """An upload whose record nobody sees until it is finished."""
        file = StoredFile(
            id=f"file-{self._ids.new()}",
            client_id=owner,
            filename="",
            purpose="",
            size=0,
            status=FileStatus.UPLOADING,
            metadata=Metadata(created_at=self._clock.now(), created_by=by),
        )
        self._files.add(file)
        return Upload(file, self._contents)

    def finish(self, upload: Upload, terms: FileTerms, key: str | None) -> tuple[StoredFile, bool]:
        """The file, and whether an earlier upload with the same key made it. Raises InvalidField and KeyReused."""
        _check(terms)
        digest = upload.save()
        if key is not None:
            earlier = self._earlier(upload, RequestKey(key, f"{digest} {terms}"))
            if earlier is not None:
                self.give_up(upload)
                return earlier, True
        seconds = timedelta(seconds=terms.seconds) if terms.seconds is not None else None
        kept = seconds or (_BATCH_KEPT if terms.purpose == BATCH else None)
        file = replace(
            upload.file,
            filename=terms.filename,
            purpose=terms.purpose,
            size=upload.size,
            status=FileStatus.PROCESSED,
            expires_at=None if kept is None else upload.file.metadata.created_at + kept,
        )
        if not self._files.compare_and_set(file):
            raise StorageUnavailable("the upload took so long that it was given up; send it again")
        return file, False

    def give_up(self, upload: Upload) -> None:
        """Removes what has come; should that fail, it goes by itself later."""
        with suppress(MetasyncError):
            self._remove(upload.file)

    def list(self, owner: str | None, purpose: str | None, after: str | None, page: Page) -> Sequence[StoredFile]:
        """Those whose time is over and that were not removed yet are passed over."""
        equals: dict[str, Sequence[str]] = {"status": [str(FileStatus.PROCESSED)]}
        if owner is not None:
            equals["clientId"] = [owner]
        if purpose is not None:
            equals["purpose"] = [purpose]
        now, live = self._clock.now(), list[StoredFile]()
        while True:
            found = self._files.find(Where(equals=equals, after=after), page)
            live += [file for file in found if file.is_there(now)]
            if len(live) >= page.limit or len(found) < page.limit:
                return live[: page.limit]
            after = found[-1].id

    def get(self, file_id: str, visible_to: str | None) -> StoredFile:
        """Raises NotFound, alike for what is not there and what is another client's."""
        file = self._files.get(file_id)
        if file is None or visible_to not in (None, file.client_id) or not file.is_there(self._clock.now()):
            raise NotFound("File", file_id)
        return file

    def chunks(self, file: StoredFile) -> Iterator[bytes]:
        """The content, at most CHUNK_BYTES at a time."""
        return pieces(self._contents, file)

    def delete(self, file_id: str, visible_to: str | None) -> None:
        """Raises NotFound, and Refused while a batch reads it."""
        file = self.get(file_id, visible_to)
        if is_read(self._batches, file_id):
            raise Refused(f"{file_id} is the input of a batch that has not ended; cancel that first")
        self._remove(file)

    def _remove(self, file: StoredFile) -> None:
        removed(self._files, self._contents, file, self._clock.now())

    def _earlier(self, upload: Upload, key: RequestKey) -> StoredFile | None:
        hexadecimal = upload.file.id.removeprefix("file-")
        record = self._keys.reserve(upload.file.client_id, key, hexadecimal, 1, self._clock.now())
        if record.first_id == hexadecimal:
            return None
        earlier = self._files.get(f"file-{record.first_id}")
        if earlier is None or earlier.status is not FileStatus.PROCESSED:
            raise KeyReused(key.key)
        return earlier


def _check(terms: FileTerms) -> None:
    if terms.purpose not in PURPOSES:
        raise InvalidField("purpose", f"must be one of: {', '.join(PURPOSES)}")
    if len(terms.filename) > LONGEST_FILENAME:
        raise InvalidField("file", f"its name is longer than {LONGEST_FILENAME} characters")
    if terms.seconds is not None and not _SHORTEST <= terms.seconds <= _LONGEST:
        raise InvalidField("expires_after[seconds]", f"must be between {_SHORTEST} and {_LONGEST}")
