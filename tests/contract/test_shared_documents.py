"""The port of documents that replicas change together, on every back-end."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from engine.llm import JsonObject
from engine.records.store import Storage
from tests.support.backends import Database
from tests.support.factories import NOW

MINUTE = timedelta(minutes=1)


def counted(document: JsonObject) -> tuple[JsonObject, int]:
    """One more than before, and what it is now."""
    number = document.get("number", 0) + 1
    return {"number": number}, number


def test_a_change_sees_the_one_before(storage: Storage) -> None:
    """The first change is given an empty object, each later one what the one before made of it."""
    answers = [storage.shared.change("a", counted, NOW) for _ in range(3)]

    assert answers == [1, 2, 3]
    assert storage.shared.get_many(["a", "b"]) == {"a": {"number": 3}}
    assert storage.shared.get_many([]) == {}


def test_changes_at_the_same_time_lose_nothing(database: Database) -> None:
    """Two replicas with four threads each count to 120: every change is there, and no answer is given twice."""
    replicas = [database.open(), database.open()]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda turn: replicas[turn % 2].shared.change("k", counted, NOW), range(120)))

    assert sorted(answers) == list(range(1, 121))
    assert replicas[0].shared.get_many(["k"]) == {"k": {"number": 120}}


def test_a_change_that_fails_changes_nothing(storage: Storage) -> None:
    """The error passes, the document stays."""
    storage.shared.change("a", counted, NOW)

    with pytest.raises(ZeroDivisionError):
        storage.shared.change("a", lambda document: ({"number": 1 // 0}, None), NOW)

    assert storage.shared.get_many(["a"]) == {"a": {"number": 1}}


def test_any_text_may_be_a_key(storage: Storage) -> None:
    """Names of models and clients are keys as they are, and keys within a document too."""
    strange = ["a.b", "$c", 'quo"te', "ünï", "x" * 300]
    for key in strange:
        storage.shared.change(key, lambda document, key=key: ({key: 1}, None), NOW)

    assert storage.shared.get_many(strange) == {key: {key: 1} for key in strange}


def test_idle_documents_are_forgotten(storage: Storage) -> None:
    """What was not written since an instant is deleted; a change that changed nothing is no write."""
    storage.shared.change("old", counted, NOW)
    storage.shared.change("new", counted, NOW)
    storage.shared.change("new", counted, NOW + MINUTE)
    storage.shared.change("old", lambda document: (document, None), NOW + MINUTE)

    assert storage.shared.forget_idle(NOW + MINUTE) == 1
    assert storage.shared.get_many(["old", "new"]) == {"new": {"number": 2}}
