"""Datasets: bodies in and out."""

from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from api.models.base import Answer, Plain, Resource, StrictBody, resource_to_wire
from api.models.job import Object, Text
from api.models.worker import MOST_FILTERS
from api.services.datasets import JobSelection
from engine.jobs.states import JobState
from engine.records.datasets import LARGEST_ITEM, MOST_ITEMS, Dataset, DatasetItem

LONGEST_NAME = 200
MOST_TAGS = 50
HEAVIEST = 1_000_000.0
_NESTED_IN_ANSWERS = 6

Wire = dict[str, Any]


def _item_json(value: Any) -> Any:
    nested = value
    for _ in range(_NESTED_IN_ANSWERS):
        nested = [nested]
    try:
        size = len(orjson.dumps(nested))
    except TypeError as error:
        raise ValueError("is nested too deeply or holds what JSON cannot carry") from error
    if size > LARGEST_ITEM:
        raise ValueError(f"is larger than {LARGEST_ITEM} bytes")
    return value


def _reference(value: dict[str, Any]) -> dict[str, Any]:
    """One level deep: what is nested has its path as its name."""
    flat: dict[str, Any] = {}
    left = list(value.items())
    while left:
        name, held = left.pop()
        if isinstance(held, dict):
            left += [(f"{name}.{inner}", deeper) for inner, deeper in held.items()]
        else:
            flat[name] = held
    lists = sorted(name for name, held in flat.items() if isinstance(held, list))
    if lists or len(flat) > MOST_FILTERS:
        why = f"{lists[0]} is a list, by which no job is found" if lists else f"more than {MOST_FILTERS} fields"
        raise ValueError(why)
    return dict(sorted(flat.items()))


def _not_null(value: Any) -> Any:
    if value is None:
        raise ValueError("must not be null")
    return value


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME), Plain]
ItemJson = Annotated[Any, AfterValidator(_item_json)]
ItemId = Annotated[str, BeforeValidator(_number_as_text), Field(min_length=1, max_length=LONGEST_NAME), Plain]
Tag = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]


class DatasetItemIn(StrictBody):
    """`input` is what a prompt gets, `expected` the right answer where there is one; both are any JSON."""

    id: ItemId | None = None
    input: Annotated[ItemJson, AfterValidator(_not_null)]
    expected: ItemJson = None
    tags: list[Tag] = Field(default_factory=list, max_length=MOST_TAGS)
    weight: float = Field(1.0, gt=0, le=HEAVIEST)

    def to_item(self, place: int) -> DatasetItem:
        """`place`, from 1, is its id where it has none."""
        return DatasetItem(
            id=self.id or str(place),
            input=self.input,
            expected=self.expected,
            tags=tuple(self.tags),
            weight=self.weight,
        )


class FromJobs(StrictBody):
    """Finished jobs become items, the newest ones: their requestData is the input, with `answers` their result what is
    expected. Without a status those that are PROCESSED or CONSUMED."""

    operation: Text | None = None
    model: Text | None = None
    status: JobState | None = None
    client_reference: Annotated[Object, AfterValidator(_reference)] | None = None
    limit: int = Field(1000, ge=1, le=10_000)
    answers: bool = True

    def to_selection(self) -> JobSelection:
        return JobSelection(
            operation=self.operation,
            model=self.model,
            status=self.status,
            client_reference=self.client_reference,
            limit=self.limit,
            with_answers=self.answers,
        )


class DatasetCreateRequest(StrictBody):
    """Exactly one of `items` and `fromJobs`. Implements api.services.datasets.DatasetDraft."""

    name: Name
    items: list[DatasetItemIn] | None = Field(None, min_length=1, max_length=MOST_ITEMS)
    from_jobs: FromJobs | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "DatasetCreateRequest":
        if (self.items is None) == (self.from_jobs is None):
            raise ValueError("give either items or fromJobs")
        return self

    @property
    def drafted(self) -> Sequence[DatasetItem] | JobSelection:
        if self.from_jobs is not None:
            return self.from_jobs.to_selection()
        return [item.to_item(place) for place, item in enumerate(self.items or (), 1)]


class DatasetItemResponse(Answer):
    id: str
    input: Any
    expected: Any = None
    tags: list[str]
    weight: float


class DatasetResponse(Resource):
    """`size` is in bytes of JSON."""

    dataset_id: str
    client_id: str
    name: str
    version: int
    item_count: int
    size: int


class DatasetPreviewResponse(DatasetResponse):
    """`preview` are the first items."""

    preview: list[DatasetItemResponse]


def dataset_to_wire(dataset: Dataset) -> Wire:
    """The fields of DatasetResponse."""
    return {
        "datasetId": dataset.id,
        "clientId": dataset.client_id,
        "name": dataset.name,
        "version": dataset.version,
        "itemCount": dataset.count,
        "size": dataset.size,
        **resource_to_wire(dataset),
    }


def item_to_wire(item: DatasetItem) -> Wire:
    """The fields of DatasetItemResponse."""
    return {
        "id": item.id,
        "input": item.input,
        "expected": item.expected,
        "tags": item.tags,
        "weight": item.weight,
    }
