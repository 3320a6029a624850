"""Which back-end a connection string means, and stored documents that cannot be read."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from engine.errors import InvalidField, StorageCorrupt
from engine.storage.codec import certain_instant, instant, job_from_document, job_to_document, json_text
from engine.storage.factory import open_storage
from engine.storage.record_codec import MODELS
from engine.storage.sqlite import SqliteStorage
from tests.support.factories import NOW, make_job, make_model

SECRET = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        f"postgres://user:{SECRET}@host/db",
        f"user:{SECRET}",
        "",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///?mode=memory",
        "sqlite:///folder/",
        f"mongodb://user:{SECRET}@:x",
    ],
)
def test_a_string_that_means_nothing(url: str) -> None:
    """It is refused by the setting's name, and never repeated: it may hold a password."""
    with pytest.raises(InvalidField, match="DB_CONNECTION_STRING") as refusal:
        open_storage(url, database="metasync")
    assert SECRET not in str(refusal.value)


def test_a_path_is_a_file(tmp_path: Path) -> None:
    """Four slashes make an absolute path, and the folders on the way are made."""
    storage = open_storage(f"sqlite:///{tmp_path}/a/b/c.db", database="")
    storage.close()
    assert isinstance(storage, SqliteStorage)
    assert (tmp_path / "a" / "b" / "c.db").exists()


def test_a_document_that_cannot_be_read_is_named() -> None:
    """A stored job or record that lacks a field, or has an impossible one, is corrupt under its own id."""
    job = make_job()
    whole = job_to_document(job, NOW)
    assert job_from_document(whole) == job
    for broken in (
        {name: value for name, value in whole.items() if name != "priority"},
        {**whole, "status": "LOST"},
        {**whole, "ledger": 5},
        {**whole, "requestData": "{"},
    ):
        with pytest.raises(StorageCorrupt, match=f"job {job.id}"):
            job_from_document(broken)
    model = make_model()
    stored = MODELS.to_document(model)
    assert MODELS.from_document(stored) == model
    with pytest.raises(StorageCorrupt, match=model.id):
        MODELS.from_document({**stored, "name": None, "cost": None})


def test_instants_are_aware() -> None:
    """Whatever form an instant was stored in, it is read as aware UTC; one that must be there is not made up."""
    naive = datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001 - as some drivers answer
    there = datetime(2026, 1, 2, 4, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    expected = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert [instant(value) for value in (naive, there, "2026-01-02T03:04:05+00:00", None)] == [expected] * 3 + [None]
    with pytest.raises(StorageCorrupt):
        certain_instant(None)


@pytest.mark.parametrize("value", [{"a": "\ud800"}, {"a": 2**70}, {"a": object()}])
def test_what_json_cannot_hold_is_an_unfit_value(value: object) -> None:
    """It is refused as a value, not as a defect."""
    with pytest.raises(InvalidField, match="cannot be stored"):
        json_text(value)
