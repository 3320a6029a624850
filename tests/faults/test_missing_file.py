"""A SQLite file that somebody removes while the service runs."""

from pathlib import Path

import pytest

from engine.errors import StorageUnavailable
from engine.jobs.queue import JobQuery, Page
from engine.storage.sqlite import open_sqlite


def test_a_read_does_not_make_the_file_anew(tmp_path: Path) -> None:
    """The first read after the file has gone is an outage: no empty file takes its place, which would look like a
    database without jobs to whoever opens it next."""
    file = tmp_path / "a 100% plain?name#.db"
    storage = open_sqlite(file, "NORMAL")
    try:
        for part in tmp_path.iterdir():
            part.unlink()
        with pytest.raises(StorageUnavailable):
            storage.jobs.find(JobQuery(), Page())
        assert list(tmp_path.iterdir()) == []
    finally:
        storage.close()
