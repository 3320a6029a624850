"""Reading the items of datasets."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Protocol

from engine.errors import NotFound
from engine.records.datasets import KIND, DatasetItem, DatasetPart, part_id
from engine.records.store import RecordStore

_PARTS_AT_ONCE = 20


class Located(Protocol):
    """What says where items are: a dataset, or what remembers one."""

    @property
    def id(self) -> str: ...
    @property
    def count(self) -> int: ...
    @property
    def starts(self) -> Sequence[int]: ...


class DatasetItems:
    """Reads items. Synchronous; raises StorageUnavailable."""

    def __init__(self, parts: RecordStore[DatasetPart]) -> None:
        self._parts = parts

    def slice(self, dataset: Located, first: int, count: int) -> list[DatasetItem]:
        """Up to `count` items from place `first` on. Raises NotFound where a part is gone."""
        last = min(first + count, dataset.count)
        if first >= last:
            return []
        numbers = range(bisect_right(dataset.starts, first) - 1, bisect_right(dataset.starts, last - 1))
        items: list[DatasetItem] = []
        for start in range(numbers.start, numbers.stop, _PARTS_AT_ONCE):
            items += self._read(dataset, range(start, min(start + _PARTS_AT_ONCE, numbers.stop)))
        skipped = dataset.starts[numbers.start]
        return items[first - skipped : last - skipped]

    def all(self, dataset: Located) -> list[DatasetItem]:
        return self.slice(dataset, 0, dataset.count)

    def _read(self, dataset: Located, numbers: range) -> Iterator[DatasetItem]:
        ids = [part_id(dataset.id, number) for number in numbers]
        found = self._parts.get_many(ids)
        for each in ids:
            if each not in found:
                raise NotFound(f"{KIND} part", each)
            yield from found[each].items
