"""Files of OpenAI's files API: what is known of each, and the port of their contents."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from engine.metadata import Metadata

CHUNK_BYTES = 512 * 1024
"""All chunks of a content but its last are of this size: well within a document of every database."""

BATCH = "batch"
BATCH_OUTPUT = "batch_output"


class FileStatus(StrEnum):
    UPLOADING = "uploading"
    PROCESSED = "processed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """`size` is in bytes. One that is still UPLOADING is nobody's yet, and goes when it stays so."""

    id: str
    client_id: str
    filename: str
    purpose: str
    size: int
    metadata: Metadata
    status: FileStatus = FileStatus.PROCESSED
    expires_at: datetime | None = None
    revision: int = 0

    def is_there(self, now: datetime) -> bool:
        """Whether its owner may still have it."""
        return self.status is FileStatus.PROCESSED and (self.expires_at is None or self.expires_at > now)


class FileContents(Protocol):
    """Contents in chunks, by a file's id and the chunk's number from 0. Synchronous; raises StorageUnavailable.

    `tests/contract/test_file_contents.py` holds back-ends to it. Repeating any of it is harmless.
    """

    def put(self, file_id: str, number: int, data: bytes) -> None:
        """Stores a chunk in place of what was there, durable on return."""
        ...

    def get(self, file_id: str, number: int) -> bytes | None: ...

    def drop(self, file_id: str) -> None:
        """Deletes all chunks of the file."""
        ...
