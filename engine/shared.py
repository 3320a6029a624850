"""Small documents that all replicas change together: what they may take of a model's limits, of a client's money."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from engine.llm import JsonObject

T = TypeVar("T")

Change = Callable[[JsonObject], tuple[JsonObject, T]]
"""Makes of a document another one and an answer. Pure, and may be called again where somebody else was faster."""


class SharedDocuments(Protocol):
    """JSON objects by key, each changed as a whole. `tests/contract/test_shared_documents.py` holds back-ends to it.

    Synchronous, from any thread; raises StorageUnavailable, after which the change may or may not have been made.
    """

    def change(self, key: str, change: "Change[T]", now: datetime) -> T:
        """Puts what `change` makes of the document ({} where there is none) in its place; gives its answer.

        Atomic: of two changes at the same time one sees what the other made. A document that stays as it was is not
        written.
        """
        ...

    def get_many(self, keys: Sequence[str]) -> dict[str, JsonObject]:
        """Those that exist, with one query."""
        ...

    def forget_idle(self, before: datetime) -> int:
        """Deletes the documents last written before that instant; answers how many."""
        ...
