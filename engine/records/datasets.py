"""Datasets: named and versioned examples to try prompts on. A version never changes; its items are kept in parts, so
that a page of a large one is cheap."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from engine.llm import JsonObject
from engine.metadata import Metadata

KIND = "Dataset"

MOST_ITEMS = 100_000
LARGEST_ITEM = 500_000
LARGEST_DATASET = 100_000_000
"""Of the JSON of an item, and of all of them, in bytes."""

_PART_ITEMS = 200
_PART_BYTES = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetItem:
    """One example. `input` and `expected` are any JSON, `expected` None where nothing is; `weight` counts in means.

    The `id` is unique in its dataset.
    """

    id: str
    input: Any
    expected: Any = None
    tags: tuple[str, ...] = ()
    weight: float = 1.0

    @property
    def request_data(self) -> JsonObject:
        """The input as a job is given it."""
        return self.input if isinstance(self.input, dict) else {"input": self.input}

    @property
    def size(self) -> int:
        """Of its JSON, in bytes. Raises TypeError for what JSON cannot hold."""
        return len(orjson.dumps([self.id, self.input, self.expected, self.tags], option=orjson.OPT_NON_STR_KEYS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A version of a client's dataset. `count` items of `size` bytes are stored in parts that begin at `starts`."""

    id: str
    client_id: str
    name: str
    version: int
    count: int
    size: int
    starts: tuple[int, ...]
    metadata: Metadata
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPart:
    """Some items of a dataset, in their order."""

    id: str
    dataset_id: str
    items: tuple[DatasetItem, ...]
    metadata: Metadata
    revision: int = 0


def part_id(dataset_id: str, number: int) -> str:
    return f"{dataset_id}-{number}"


def parts_of(dataset_id: str, items: Iterable[DatasetItem], metadata: Metadata) -> list[DatasetPart]:
    """`items` in parts that every database takes."""
    return [
        DatasetPart(id=part_id(dataset_id, number), dataset_id=dataset_id, items=tuple(part), metadata=metadata)
        for number, part in enumerate(_cut(items))
    ]


def _cut(items: Iterable[DatasetItem]) -> Iterator[list[DatasetItem]]:
    part: list[DatasetItem] = []
    size = 0
    for item in items:
        if part and (len(part) == _PART_ITEMS or size + item.size > _PART_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += item.size
    if part:
        yield part


def starts_of(parts: Sequence[DatasetPart]) -> tuple[int, ...]:
    """The place of each part's first item."""
    starts, place = [], 0
    for part in parts:
        starts.append(place)
        place += len(part.items)
    return tuple(starts)
