"""The port of files' contents, on every back-end, and what is read and written over it."""

from typing import Any

import pytest

from engine.batches.contents import Appending, pieces
from engine.errors import StorageCorrupt
from engine.jobs.queue import Page
from engine.metadata import Metadata
from engine.records.files import CHUNK_BYTES, StoredFile
from engine.records.store import Storage, Where
from tests.support.factories import CLIENT, NOW


def make_file(number: int = 1, **fields: Any) -> StoredFile:
    values = {"id": f"file-{number}", "client_id": CLIENT, "filename": "f", "purpose": "batch", "size": 0}
    return StoredFile(**{**values, "metadata": Metadata(created_at=NOW), **fields})


def test_a_chunk_is_what_was_put_last(storage: Storage) -> None:
    """Any bytes come back as they were; a chunk that is put again takes the place of the one before."""
    contents = storage.contents
    assert contents.get("file-1", 0) is None
    for data in (bytes(range(256)) * 4, b"", b"\x00again"):
        contents.put("file-1", 0, data)
        contents.put("file-1", 0, data)
        assert contents.get("file-1", 0) == data


def test_dropping_takes_all_chunks_of_that_file_alone(storage: Storage) -> None:
    """Files whose ids begin alike keep theirs."""
    for file_id in ("file-1", "file-10", "file-2"):
        for number in (0, 1, 11):
            storage.contents.put(file_id, number, b"x")
    storage.contents.drop("file-1")
    storage.contents.drop("file-1")
    assert [storage.contents.get("file-1", number) for number in (0, 1, 11)] == [None] * 3
    assert storage.contents.get("file-10", 11) == storage.contents.get("file-2", 0) == b"x"


def test_what_is_appended_is_read_from_anywhere(storage: Storage) -> None:
    """A content of several chunks, written in odd pieces, is read whole and from any place."""
    content = bytes(number % 251 for number in range(CHUNK_BYTES * 2 + 77))
    writing = Appending(storage.contents, "file-1")
    for start in range(0, len(content), 300_001):
        writing.add(content[start : start + 300_001])
    file = make_file(size=writing.save())
    assert file.size == len(content)
    for offset in (0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 5, file.size - 1, file.size):
        assert b"".join(pieces(storage.contents, file, offset)) == content[offset:]


def test_writing_goes_on_over_what_a_crash_left(storage: Storage) -> None:
    """Whoever goes on from a size that was stored overwrites everything beyond it."""
    first = Appending(storage.contents, "file-1")
    first.add(b"a" * (CHUNK_BYTES - 1))
    size = first.save()
    first.add(b"lost" * CHUNK_BYTES)
    first.save()
    again = Appending(storage.contents, "file-1", size)
    again.add(b"bc")
    file = make_file(size=again.save())
    assert b"".join(pieces(storage.contents, file)) == b"a" * (CHUNK_BYTES - 1) + b"bc"


def test_a_chunk_that_is_gone_is_no_shorter_file(storage: Storage) -> None:
    """A missing chunk is an error, not an end."""
    with pytest.raises(StorageCorrupt):
        list(pieces(storage.contents, make_file(size=1)))


def test_a_page_begins_after_a_record(storage: Storage) -> None:
    """Lists go on after any record, also one that was deleted, in both directions; after an unknown one is nothing."""
    for number in range(4):
        storage.files.add(make_file(number))
    gone = make_file(1, metadata=Metadata(created_at=NOW, deleted_at=NOW))
    assert storage.files.compare_and_set(gone)

    def after(file_id: str, *, newest_first: bool) -> list[str]:
        page = Page(newest_first=newest_first)
        return [file.id for file in storage.files.find(Where(equals={"clientId": [CLIENT]}, after=file_id), page)]

    assert after("file-1", newest_first=False) == ["file-2", "file-3"]
    assert after("file-2", newest_first=True) == ["file-0"]
    assert after("file-3", newest_first=False) == after("none", newest_first=True) == []
