"""The state of a search in storage: JSON, compressed, in parts that no database is too small for.

Two generations exist side by side. The next one is written whole before the run's head names it, so that whoever dies
in between leaves the last one as it was. A process that has lost its run, however long it stood still before it went
on, overwrites nothing: it looks at the run's head between reading the parts that are there and writing its own by their
revisions, and whoever has taken the run over has changed the head before any part.
"""

import base64
import hashlib
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson

from engine.errors import Duplicate, LeaseLost, StorageCorrupt
from engine.jobs.queue import Page
from engine.metadata import Metadata
from engine.records.runs import OPTIMIZER, Run
from engine.records.searches import RunPart, StateAt
from engine.records.store import RecordStore, Where
from utilities.clock import Clock

LARGEST_PART = 1024 * 1024
"""Characters of one part: with all that surrounds it less than the 2 MB that Cosmos DB takes."""

MOST_PARTS = 64
_LEVEL = 6
_PAGE = 4 * MOST_PARTS


class StateStore:
    """Synchronous; raises StorageUnavailable."""

    def __init__(self, parts: RecordStore[RunPart], clock: Clock) -> None:
        self._parts = parts
        self._clock = clock

    def read(self, run_id: str, at: StateAt) -> dict[str, Any]:
        """Raises StorageCorrupt where it is not as it was written."""
        names = [_name(run_id, at.generation, place) for place in range(at.parts)]
        found = self._parts.get_many(names)
        texts = [found[name].text for name in names if name in found]
        packed = base64.b64decode("".join(texts))
        if len(texts) < at.parts or _digest(packed) != at.digest:
            raise StorageCorrupt(f"the state of run {run_id} is not as it was written")
        state: dict[str, Any] = orjson.loads(zlib.decompress(packed))
        return state

    def write(
        self, run_id: str, generation: int, state: dict[str, Any], is_unchanged: Callable[[], bool] = lambda: True
    ) -> StateAt:
        """Where it is, to be stored in the run's head. Raises LeaseLost where another process writes it just now, and
        where the head is found to have changed."""
        packed = zlib.compress(orjson.dumps(state, option=orjson.OPT_SORT_KEYS), _LEVEL)
        text = base64.b64encode(packed).decode()
        pieces = [text[start : start + LARGEST_PART] for start in range(0, len(text), LARGEST_PART)]
        if len(pieces) > MOST_PARTS:
            raise StorageCorrupt(f"the state of run {run_id} has outgrown the {MOST_PARTS} parts that a state may have")
        names = [_name(run_id, generation, place) for place in range(len(pieces))]
        known = self._parts.get_many(names)
        if not is_unchanged():
            raise LeaseLost(f"run {run_id} was changed meanwhile")
        for name, piece in zip(names, pieces, strict=True):
            self._put(known.get(name), RunPart(id=name, run_id=run_id, text=piece, metadata=self._made()))
        return StateAt(generation=generation, parts=len(pieces), digest=_digest(packed))

    def forget(self, run: Run) -> None:
        """Deletes all parts, and what they held."""
        while found := self._parts.find(Where(equals={"runId": [run.id]}), Page(limit=_PAGE)):
            for part in found:
                metadata = part.metadata.deleted(self._clock.now(), OPTIMIZER)
                self._parts.compare_and_set(replace(part, text="", metadata=metadata))

    def _put(self, known: RunPart | None, part: RunPart) -> None:
        if known is not None and known.text == part.text:
            return
        try:
            if known is None:
                self._parts.add(part)
                return
        except Duplicate as error:
            raise LeaseLost(f"run {part.run_id} is driven elsewhere") from error
        if not self._parts.compare_and_set(replace(part, revision=known.revision)):
            raise LeaseLost(f"run {part.run_id} is driven elsewhere")

    def _made(self) -> Metadata:
        return Metadata(created_at=self._clock.now(), created_by=OPTIMIZER)


def _name(run_id: str, generation: int, place: int) -> str:
    return f"{run_id}-{generation % 2}-{place}"


def _digest(packed: bytes) -> str:
    return hashlib.sha256(packed).hexdigest()
