"""Datasets: made from items or from finished jobs, looked at and deleted. A version never changes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from api.services.changing import changed
from api.services.job_drafts import Maker
from api.services.job_edits import Editor
from api.services.versions import add_next, conditions, seen
from engine.errors import InvalidField
from engine.jobs.job import Job
from engine.jobs.queue import JobQuery, JobQueue, Page
from engine.jobs.references import filter_texts
from engine.jobs.states import JobState
from engine.llm import JsonObject
from engine.metadata import Metadata
from engine.records.dataset_items import DatasetItems
from engine.records.datasets import (
    KIND,
    LARGEST_DATASET,
    LARGEST_ITEM,
    Dataset,
    DatasetItem,
    parts_of,
    starts_of,
)
from engine.records.store import Storage, Where
from utilities.clock import Clock
from utilities.ids import ObjectIds

PREVIEW = 5
_PAGE = 500
_ANSWERED = (JobState.PROCESSED, JobState.CONSUMED)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSelection:
    """Which finished jobs become items, the newest first. `with_answers`: their results are what is expected."""

    operation: str | None = None
    model: str | None = None
    status: JobState | None = None
    client_reference: JsonObject | None = None
    limit: int = 1000
    with_answers: bool = True


class DatasetDraft(Protocol):
    """A dataset as it was asked for: with its items, or with a selection of jobs."""

    @property
    def name(self) -> str: ...
    @property
    def drafted(self) -> Sequence[DatasetItem] | JobSelection: ...


class DatasetService:
    """Synchronous. A client sees its own datasets, an admin all."""

    def __init__(self, storage: Storage, *, clock: Clock, ids: ObjectIds) -> None:
        self._datasets = storage.datasets
        self._parts = storage.dataset_parts
        self._queue: JobQueue = storage.jobs
        self._items = DatasetItems(storage.dataset_parts)
        self._clock = clock
        self._ids = ids

    def create(self, draft: DatasetDraft, maker: Maker) -> Dataset:
        """The next version of that name. It can be seen once all of it is stored. Raises InvalidField."""
        drafted = draft.drafted
        items = self._from_jobs(drafted, maker) if isinstance(drafted, JobSelection) else drafted
        size = _checked(items)
        metadata = Metadata(created_at=self._clock.now(), created_by=maker.by)
        dataset_id = self._ids.new()
        parts = parts_of(dataset_id, items, metadata)
        for part in parts:
            self._parts.add(part)
        client_id = maker.owner.client_id

        def make(version: int) -> Dataset:
            return Dataset(
                id=dataset_id,
                client_id=client_id,
                name=draft.name,
                version=version,
                count=len(items),
                size=size,
                starts=starts_of(parts),
                metadata=metadata,
            )

        return add_next(self._datasets, client_id, draft.name, make)

    def get(self, editor: Editor, dataset_id: str) -> Dataset:
        """Raises NotFound."""
        return seen(self._datasets.get(dataset_id), editor, KIND, dataset_id)

    def preview(self, editor: Editor, dataset_id: str) -> tuple[Dataset, list[DatasetItem]]:
        """With its first items. Raises NotFound."""
        dataset = self.get(editor, dataset_id)
        return dataset, self._items.slice(dataset, 0, PREVIEW)

    def items(self, editor: Editor, dataset_id: str, page: Page) -> tuple[list[DatasetItem], int]:
        """A page of the items, and how many there are. Raises NotFound."""
        dataset = self.get(editor, dataset_id)
        if not page.newest_first:
            return self._items.slice(dataset, page.skip, page.limit), dataset.count
        last = dataset.count - page.skip
        first = max(last - page.limit, 0)
        return self._items.slice(dataset, first, last - first)[::-1], dataset.count

    def list(self, editor: Editor, name: str | None, page: Page) -> tuple[list[Dataset], int]:
        """A page of the datasets in all their versions, and how many there are."""
        where = Where(equals=conditions(editor, name))
        return self._datasets.find(where, page), self._datasets.count(where)

    def delete(self, editor: Editor, dataset_id: str) -> None:
        """Raises NotFound."""

        def deleted(found: Dataset | None) -> Dataset:
            dataset = seen(found, editor, KIND, dataset_id)
            return replace(dataset, metadata=dataset.metadata.deleted(self._clock.now(), editor.by))

        changed(self._datasets, dataset_id, deleted)

    def _from_jobs(self, selection: JobSelection, maker: Maker) -> Sequence[DatasetItem]:
        statuses = _ANSWERED if selection.status is None else (selection.status,)
        found = [item for status in statuses for item in self._items_of(selection, status, maker.owner.client_id)]
        return sorted(found, key=lambda item: item.id)[-selection.limit :]

    def _items_of(self, selection: JobSelection, status: JobState, client_id: str) -> Sequence[DatasetItem]:
        """Of the newest jobs in that status that have what is wanted."""
        query = JobQuery(
            client_id=client_id,
            status=status,
            operation=selection.operation,
            model=selection.model,
            references=tuple(filter_texts(selection.client_reference or {})),
        )
        wanted = _item_with_answer if selection.with_answers else _item_of
        items: list[DatasetItem] = []
        skip = 0
        while len(items) < selection.limit:
            jobs = self._queue.find(query, Page(limit=_PAGE, skip=skip, newest_first=True))
            items += [item for item in map(wanted, jobs) if item is not None]
            skip += _PAGE
            if len(jobs) < _PAGE:
                break
        return items[: selection.limit]


Itemized = Callable[[Job], DatasetItem | None]


def _item_of(job: Job) -> DatasetItem | None:
    return DatasetItem(id=job.id, input=job.request_data)


def _item_with_answer(job: Job) -> DatasetItem | None:
    response = job.response_data
    if response is None:
        return None
    [*names] = response
    plain = response[names[0]] if names in (["text"], ["value"]) else response
    return DatasetItem(id=job.id, input=job.request_data, expected=plain)


def _checked(items: Sequence[DatasetItem]) -> int:
    """Their size. Raises InvalidField where there are none, too large ones or two of one id."""
    if not items:
        raise InvalidField("items", "there are none")
    places: dict[str, int] = {}
    total = 0
    for place, item in enumerate(items, 1):
        if places.setdefault(item.id, place) != place:
            raise InvalidField("items", f"item {place} has the id of item {places[item.id]}: {item.id[:200]}")
        if item.size > LARGEST_ITEM:
            raise InvalidField("items", f"item {place} is larger than {LARGEST_ITEM} bytes")
        total += item.size
    if total > LARGEST_DATASET:
        raise InvalidField("items", f"are larger than {LARGEST_DATASET} bytes together")
    return total
