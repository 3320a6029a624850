"""The items of deleted datasets: gone in the end, whatever comes in between, and never while they are needed."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from engine.errors import StorageUnavailable
from engine.records.datasets import Dataset, DatasetItem, part_id, parts_of, starts_of
from engine.records.evaluations import EvaluationStatus, ItemsAt
from engine.records.store import Storage
from llm_optimizer.dataset_sweep import DatasetSweeper
from tests.support.completing import LeapingClock
from tests.support.evaluating import begun
from tests.support.factories import CLIENT, IDS, make_dataset, metadata
from tests.support.faulty import Fault, Faulty, Plan

CLOCK = LeapingClock()


def stored(storage: Storage, name: str, count: int = 450) -> Dataset:
    dataset_id = IDS.new()
    made = metadata(created_at=CLOCK.now() - timedelta(hours=2))
    parts = parts_of(dataset_id, [DatasetItem(id=str(n), input=n) for n in range(count)], made)
    for part in parts:
        storage.dataset_parts.add(part)
    dataset = make_dataset(id=dataset_id, name=name, count=count, starts=starts_of(parts))
    storage.datasets.add(dataset)
    return dataset


def delete(storage: Storage, dataset: Dataset) -> None:
    gone = replace(dataset, metadata=dataset.metadata.deleted(CLOCK.now(), CLIENT))
    assert storage.datasets.compare_and_set(gone)


def swept(storage: Storage) -> None:
    """By one that has been at it for some minutes."""
    clock = LeapingClock()
    sweeper = DatasetSweeper(storage, clock)
    for _ in range(2):
        while sweeper.sweep():
            pass
        clock.leap(120)


def parts_left(storage: Storage, dataset: Dataset) -> int:
    ids = [part_id(dataset.id, number) for number in range(len(dataset.starts))]
    return len(storage.dataset_parts.get_many(ids))


@pytest.mark.parametrize("hit", range(3, 9))
def test_the_items_of_a_deleted_dataset_go(storage: Storage, hit: int) -> None:
    """Those of others stay, wherever an outage comes in between; a later sweep finds what is left."""
    first, gone, last = (stored(storage, name) for name in ("first", "gone", "last"))
    delete(storage, gone)
    with suppress(StorageUnavailable):
        swept(Faulty(storage, Plan(Fault.BEFORE, hit)))  # type: ignore[arg-type]
    swept(storage)
    assert [parts_left(storage, each) for each in (first, gone, last)] == [3, 0, 3]


def test_items_that_are_needed_stay(storage: Storage) -> None:
    """An evaluation under way keeps the items of a dataset that was deleted meanwhile, until it has ended."""
    dataset = stored(storage, "needed")
    items = ItemsAt(id=dataset.id, count=dataset.count, starts=dataset.starts)
    evaluation = begun(storage, dataset_id=dataset.id, items=items)
    delete(storage, dataset)
    swept(storage)
    assert parts_left(storage, dataset) == 3
    assert storage.evaluations.compare_and_set(replace(evaluation, status=EvaluationStatus.COMPLETED))
    swept(storage)
    assert parts_left(storage, dataset) == 0


def test_a_dataset_in_the_making_stays(storage: Storage) -> None:
    """Its parts are stored before it is: for an hour they are taken for such ones."""
    dataset_id = IDS.new()
    made = metadata(created_at=CLOCK.now())
    [part] = parts_of(dataset_id, [DatasetItem(id="1", input=1)], made)
    storage.dataset_parts.add(part)
    swept(storage)
    assert storage.dataset_parts.get(part.id) is not None
