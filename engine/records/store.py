"""The ports of the record stores; `tests/contract/test_record_store.py` holds every back-end to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from engine.jobs.queue import JobQueue, Page
from engine.records.batches import Batch
from engine.records.datasets import Dataset, DatasetPart
from engine.records.evaluations import Evaluation, EvaluationPart
from engine.records.evaluators import Evaluator
from engine.records.files import FileContents, StoredFile
from engine.records.runs import Run
from engine.records.searches import RunPart
from engine.records.streams import StreamStore
from engine.records.values import Client, Model, Prompt, PromptFlow, Worker
from engine.shared import SharedDocuments
from engine.usage import UsageStore

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Conditions that hold together. `equals` maps a stored field's wire name to the values it may have.

    `visible_to` restricts to what is public or belongs to that client, `after` to what comes after the record of that
    id, in the order in which it is asked for: nothing where there never was one.
    """

    equals: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    visible_to: str | None = None
    after: str | None = None


class RecordStore(Protocol[R]):
    """One kind of record. Deleted records are invisible to every method. Reads and writes raise StorageUnavailable."""

    def add(self, record: R) -> None:
        """Store a new record, durable on return. Raises Duplicate where its unique key is taken among the live."""
        ...

    def get(self, record_id: str) -> R | None: ...

    def get_many(self, record_ids: Sequence[str]) -> dict[str, R]:
        """Those that exist, by id, with one query."""
        ...

    def compare_and_set(self, record: R) -> bool:
        """Replace the record whose stored revision equals the given one's. Raises Duplicate as `add` does.

        A record whose metadata says deleted vanishes and frees its unique key. False: it was changed meanwhile, or
        is gone.
        """
        ...

    def find(self, where: Where, page: Page) -> list[R]:
        """Matching records in insertion order."""
        ...

    def count(self, where: Where) -> int: ...


class PromptStore(RecordStore[Prompt], Protocol):
    """Unique among the live: scope (public or client), name, type, version (3 and "3" are distinct)."""

    def highest_version(self, name: str, kind: str, client_id: str | None) -> int:
        """The highest integer version among the live prompts of this name, type and scope; 0 if there is none."""
        ...


class WorkerStore(RecordStore[Worker], Protocol):
    """Unique among the live: client and name."""

    def running(self) -> list[Worker]:
        """All workers whose desired state is running, whoever runs them."""
        ...

    def renew(self, owner: str, expires_at: datetime) -> int:
        """Move the leases of all running workers of `owner` to `expires_at`; answers how many there are."""
        ...


class Storage(Protocol):
    """A back-end, open."""

    jobs: JobQueue
    clients: RecordStore[Client]
    models: RecordStore[Model]
    prompts: PromptStore
    prompt_flows: RecordStore[PromptFlow]
    workers: WorkerStore
    shared: SharedDocuments
    usage: UsageStore
    streams: StreamStore
    runs: RecordStore[Run]
    files: RecordStore[StoredFile]
    contents: FileContents
    batches: RecordStore[Batch]
    run_parts: RecordStore[RunPart]
    datasets: RecordStore[Dataset]
    dataset_parts: RecordStore[DatasetPart]
    evaluators: RecordStore[Evaluator]
    evaluations: RecordStore[Evaluation]
    evaluation_parts: RecordStore[EvaluationPart]

    def ping(self) -> None:
        """A round trip to the database; raises StorageUnavailable within 5 seconds when it cannot be reached."""
        ...

    def server_time(self) -> datetime | None:
        """The database server's own clock, aware UTC; None where this machine's clock is the only one there is."""
        ...

    def close(self) -> None: ...
