"""Subjects from storage: prompts, models, a dataset and an evaluator, as they are when a process takes a run up."""

from engine.errors import UnknownReference
from engine.llm import JsonObject
from engine.records.runs import Run
from engine.records.store import Storage
from llm_optimizer.subject import Subject


class StoredSubjects:
    """Implements llm_optimizer.subject.Subjects."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def pinned(self, run: Run) -> JsonObject:
        raise UnknownReference("dataset", run.search.dataset_id if run.search is not None else "")

    def load(self, run: Run, pinned: JsonObject) -> Subject:  # noqa: ARG002 - no dataset exists yet
        raise UnknownReference("dataset", run.search.dataset_id if run.search is not None else "")
