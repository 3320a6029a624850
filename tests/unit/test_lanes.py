"""How a process's lanes follow what is stored."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.records.store import Storage
from engine.records.values import Model
from engine.storage.factory import open_storage
from llm_workers.lane import Reason, Shut
from llm_workers.lanes import Lanes
from tests.support.factories import NOW, make_model
from utilities.clock import SystemClock


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    """Which back-end it is does not matter here."""
    storage = open_storage(f"sqlite:///{tmp_path / 'lanes.db'}", database="test", synchronous="NORMAL")
    yield storage
    storage.close()


async def _here(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


class _Clock(SystemClock):
    """`ahead` of the steady clock by so many seconds."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


def _stored(storage: Storage, **fields: Any) -> Model:
    model = make_model(**fields)
    storage.models.add(model)
    return model


def test_a_deleted_model_leaves_nothing_behind(storage: Storage) -> None:
    """Its lane goes once nothing runs there, and a new model of its name is claimed for by its own state at once."""
    clock, old = _Clock(), _stored(storage)
    lanes = Lanes(storage, clock=clock, hop=_here, replica="a")
    lane = lanes.lane(old)
    lane.arrive()
    assert lane.place(1, lanes.now()) is None
    lane.shut(Shut(lanes.now() + 900, Reason.QUOTA, "no money"))
    assert storage.models.compare_and_set(replace(old, metadata=old.metadata.deleted(NOW, "admin")))
    new = _stored(storage)

    lanes.tick()
    assert lanes.models()[old.name].id == new.id
    assert lanes.of(old) is lane
    lane.dropped()
    clock.ahead = 2.0
    lanes.tick()
    assert lanes.of(old) is None
