"""The state of a search on every back-end: any size, the last one whole whatever happens to the next one."""

import random

import pytest

from engine.errors import LeaseLost, StorageCorrupt
from engine.records.store import Storage, Where
from llm_optimizer import search_store
from llm_optimizer.search_store import LARGEST_PART, StateStore
from tests.support.factories import IDS, make_run
from utilities.clock import SystemClock

RUN = "a" * 24


def state_of(size: int, seed: int = 0) -> dict[str, object]:
    """A state that does not compress."""
    return {"texts": random.Random(seed).randbytes(size).hex(), "ü": [1.5, None, {"x": "🙂"}]}


def store_of(storage: Storage) -> StateStore:
    return StateStore(storage.run_parts, SystemClock())


@pytest.mark.parametrize("parts", [1, 4])
def test_a_state_comes_back_as_it_went_in(storage: Storage, parts: int) -> None:
    """Also one that no single document could hold, and one that takes fewer parts than the one before."""
    store = store_of(storage)
    for generation in range(4):
        wanted = state_of(1_000 if generation == 3 else (parts - 1) * LARGEST_PART * 3 // 4 + 1_000, generation)
        at = store.write(RUN, generation, wanted)
        assert store.read(RUN, at) == wanted
    assert at.parts == 1


def test_the_last_generation_outlives_a_half_written_one(storage: Storage) -> None:
    """What was named is there until the next but one is written; a state that was written over is noticed."""
    store = store_of(storage)
    first = store.write(RUN, 1, state_of(10, 1))
    store.write(RUN, 2, state_of(10, 2))
    assert store.read(RUN, first) == state_of(10, 1)
    store.write(RUN, 3, state_of(10, 3))
    with pytest.raises(StorageCorrupt, match=RUN):
        store.read(RUN, first)


def test_writing_it_again_changes_nothing(storage: Storage) -> None:
    """Two processes that write the same generation write the same, so that both are right."""
    one, other = store_of(storage), store_of(storage)
    at = one.write(RUN, 1, state_of(10))
    assert other.write(RUN, 1, state_of(10)) == at
    assert one.read(RUN, at) == state_of(10)


def test_forgetting_leaves_nothing(storage: Storage) -> None:
    """All parts of the run are gone, those of others are not."""
    store, other = store_of(storage), IDS.new()
    store.write(RUN, 1, state_of(10))
    kept = store.write(other, 1, state_of(10))
    store.forget(make_run(id=RUN))
    assert storage.run_parts.count(Where(equals={"runId": [RUN]})) == 0
    assert store.read(other, kept) == state_of(10)


def test_there_is_an_end_to_it(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that outgrows what a run may have is refused before any of it is written."""
    monkeypatch.setattr(search_store, "MOST_PARTS", 1)
    with pytest.raises(StorageCorrupt, match="outgrown"):
        store_of(storage).write(RUN, 1, state_of(LARGEST_PART))
    assert storage.run_parts.count(Where(equals={"runId": [RUN]})) == 0


def test_a_rival_is_noticed(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another process writes a part between a look and a write, nobody overwrites it unseen."""
    store = store_of(storage)
    seen = storage.run_parts.get_many([])
    monkeypatch.setattr(storage.run_parts, "get_many", lambda _ids: seen)
    store.write(RUN, 1, state_of(10, 1))
    with pytest.raises(LeaseLost):
        store.write(RUN, 1, state_of(10, 2))
