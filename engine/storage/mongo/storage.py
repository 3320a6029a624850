"""The back-end, opened."""

from datetime import datetime

from pymongo import MongoClient

from engine.errors import StorageError
from engine.jobs.queue import JobQueue
from engine.records.batches import Batch
from engine.records.datasets import Dataset, DatasetPart
from engine.records.evaluations import Evaluation, EvaluationPart
from engine.records.evaluators import Evaluator
from engine.records.files import FileContents, StoredFile
from engine.records.runs import Run
from engine.records.searches import RunPart
from engine.records.store import PromptStore, RecordStore, WorkerStore
from engine.records.streams import StreamStore
from engine.records.values import Client, Model, PromptFlow
from engine.shared import SharedDocuments
from engine.storage.batch_codec import BATCHES, FILES
from engine.storage.dataset_codec import DATASET_PARTS, DATASETS, EVALUATORS
from engine.storage.evaluations_codec import EVALUATION_PARTS, EVALUATIONS
from engine.storage.mongo.clock import server_time
from engine.storage.mongo.connection import Document, connect, database_of, is_cosmos
from engine.storage.mongo.contents import MongoFileContents
from engine.storage.mongo.faults import guarded
from engine.storage.mongo.indexes import CHUNKS, SHARED, make_indexes
from engine.storage.mongo.jobs import MongoJobQueue
from engine.storage.mongo.records import MongoPrompts, MongoRecords, MongoWorkers
from engine.storage.mongo.shared import MongoSharedDocuments
from engine.storage.mongo.streams import MongoStreams
from engine.storage.record_codec import CLIENTS, MODELS, PROMPT_FLOWS
from engine.storage.run_codec import RUNS
from engine.storage.search_codec import RUN_PARTS
from engine.usage import UsageStore
from utilities.ids import ObjectIds


class MongoStorage:
    """Implements engine.records.store.Storage over one client, which it closes."""

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

    def __init__(self, client: MongoClient[Document], database: str, *, cosmos: bool) -> None:
        """Makes the indexes that are missing."""
        self._client = client
        self._database = database_of(client, database)
        self.ping()  # indexes may take minutes to make; that the server is there should not
        make_indexes(self._database, cosmos=cosmos)
        ids = ObjectIds()
        self._queue = MongoJobQueue(self._database)
        self.jobs = self._queue
        self.usage = self._queue.usage
        self.streams = MongoStreams(self._database, self._queue.marks)
        self.clients = MongoRecords(self._database, CLIENTS, ids)
        self.models = MongoRecords(self._database, MODELS, ids)
        self.prompts = MongoPrompts(self._database, ids)
        self.prompt_flows = MongoRecords(self._database, PROMPT_FLOWS, ids)
        self.workers = MongoWorkers(self._database, ids)
        self.runs = MongoRecords(self._database, RUNS, ids)
        self.files = MongoRecords(self._database, FILES, ids)
        self.contents = MongoFileContents(self._database[CHUNKS])
        self.batches = MongoRecords(self._database, BATCHES, ids)
        self.run_parts = MongoRecords(self._database, RUN_PARTS, ids)
        self.datasets = MongoRecords(self._database, DATASETS, ids)
        self.dataset_parts = MongoRecords(self._database, DATASET_PARTS, ids)
        self.evaluators = MongoRecords(self._database, EVALUATORS, ids)
        self.evaluations = MongoRecords(self._database, EVALUATIONS, ids)
        self.evaluation_parts = MongoRecords(self._database, EVALUATION_PARTS, ids)
        self.shared = MongoSharedDocuments(self._database[SHARED])

    def ping(self) -> None:
        guarded(lambda: self._client.admin.command("ping"))

    def server_time(self) -> datetime | None:
        return server_time(self._database)

    def close(self) -> None:
        try:
            self._queue.close()
        except StorageError:  # the marks age away by themselves
            return
        finally:
            self._client.close()


def open_mongo(url: str, database: str, *, cosmos: bool | None = None) -> MongoStorage:
    """A back-end on the server at `url`, its indexes made; `cosmos` None tells Cosmos DB by its host name.

    Raises InvalidField for a URL or name that is not acceptable, StorageUnavailable when the server cannot be reached
    within five seconds. Neither shows the URL.
    """
    on_cosmos = is_cosmos(url) if cosmos is None else cosmos
    client = connect(url, cosmos=on_cosmos)
    try:
        return MongoStorage(client, database, cosmos=on_cosmos)
    except BaseException:
        client.close()
        raise
