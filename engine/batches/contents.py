"""Contents of files read and written piece by piece, so that no file is ever in memory as a whole."""

from collections.abc import Iterator

from engine.errors import StorageCorrupt
from engine.records.files import CHUNK_BYTES, FileContents, StoredFile


def pieces(contents: FileContents, file: StoredFile, offset: int = 0) -> Iterator[bytes]:
    """The content from `offset` on, a chunk at a time. Raises StorageCorrupt where a chunk is gone."""
    number, skipped = divmod(offset, CHUNK_BYTES)
    while number * CHUNK_BYTES + skipped < file.size:
        chunk = contents.get(file.id, number)
        if chunk is None:
            raise StorageCorrupt(f"chunk {number} of file {file.id} is missing")
        yield chunk[skipped:] if skipped else chunk
        number, skipped = number + 1, 0


class Appending:
    """A content that is written from `size` on: what a crash left beyond that is written over."""

    def __init__(self, contents: FileContents, file_id: str, size: int = 0) -> None:
        self.size = size
        self._contents = contents
        self._file_id = file_id
        self._number, kept = divmod(size, CHUNK_BYTES)
        begun = contents.get(file_id, self._number) if kept else None
        self._tail = bytearray((begun or b"")[:kept])

    def add(self, data: bytes) -> None:
        """Full chunks are stored at once, the rest by `save`."""
        self._tail += data
        self.size += len(data)
        while len(self._tail) >= CHUNK_BYTES:
            self._contents.put(self._file_id, self._number, bytes(self._tail[:CHUNK_BYTES]))
            del self._tail[:CHUNK_BYTES]
            self._number += 1

    def save(self) -> int:
        """The size, of which everything is durable now."""
        if self._tail:
            self._contents.put(self._file_id, self._number, bytes(self._tail))
        return self.size
