"""Records that come in versions, each of them made once and never changed."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from api.services.job_edits import Editor
from engine.errors import Duplicate, NotFound, StorageUnavailable
from engine.jobs.queue import Page
from engine.records.datasets import Dataset
from engine.records.evaluators import Evaluator
from engine.records.store import RecordStore, Where

V = TypeVar("V", Dataset, Evaluator)

_TRIES = 200
"""How often the next version is looked for while others take it first; every failure means that somebody succeeded."""


def add_next(store: RecordStore[V], client_id: str, name: str, make: Callable[[int], V]) -> V:
    """Stores what `make` gives for the next version of the client's records of that name, from 1."""
    for _ in range(_TRIES):
        where = Where(equals={"clientId": [client_id], "name": [name]})
        newest = store.find(where, Page(limit=1, newest_first=True))
        made = make(newest[0].version + 1 if newest else 1)
        with suppress(Duplicate):
            store.add(made)
            return made
    raise StorageUnavailable("the next versions are being taken by many at once")


def seen(found: V | None, editor: Editor, kind: str, record_id: str) -> V:
    """Raises NotFound for what is not there or is another client's."""
    if found is None or not (editor.admin or found.client_id == editor.by):
        raise NotFound(kind, record_id)
    return found


def conditions(editor: Editor, name: str | None) -> dict[str, list[object]]:
    """What a list is restricted to."""
    equals: dict[str, list[object]] = {} if editor.admin else {"clientId": [editor.by]}
    return equals if name is None else {**equals, "name": [name]}
