"""Reading a record, changing it and writing it back, so that no concurrent change is lost."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from engine.errors import StorageUnavailable
from engine.records.batches import Batch
from engine.records.datasets import Dataset
from engine.records.evaluations import Evaluation
from engine.records.evaluators import Evaluator
from engine.records.runs import Run
from engine.records.store import RecordStore
from engine.records.values import Client, Model, Prompt, PromptFlow, Worker

R = TypeVar("R", Client, Model, Prompt, PromptFlow, Worker, Run, Batch, Dataset, Evaluator, Evaluation)

TRIES = 50


def changed(store: RecordStore[R], record_id: str, change: Callable[[R | None], R]) -> R:
    """The record after `change`, which is given what is stored now (None: nothing live) and may be called repeatedly.

    Where it answers the very object it was given, nothing is written. Its errors pass through. Raises
    StorageUnavailable where somebody else's change came in between TRIES times.
    """
    for _ in range(TRIES):
        before = store.get(record_id)
        after = change(before)
        if after is before:
            return after
        if store.compare_and_set(after):
            return replace(after, revision=after.revision + 1)
    raise StorageUnavailable(f"{record_id} is being changed by many at once")
