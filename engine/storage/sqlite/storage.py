"""The SQLite back-end, put together."""

import os
from datetime import datetime
from pathlib import Path

from engine.errors import StorageError, StorageUnavailable
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
from engine.storage.record_codec import CLIENTS, MODELS, PROMPT_FLOWS
from engine.storage.run_codec import RUNS
from engine.storage.search_codec import RUN_PARTS
from engine.storage.sqlite.connection import Readers, open_writer
from engine.storage.sqlite.contents import SqliteFileContents
from engine.storage.sqlite.jobs import SqliteJobQueue
from engine.storage.sqlite.records import SqlitePromptStore, SqliteRecordStore, SqliteWorkerStore
from engine.storage.sqlite.schema import migrate
from engine.storage.sqlite.shared import SqliteSharedDocuments
from engine.storage.sqlite.streams import SqliteStreams
from engine.storage.sqlite.usage import SqliteUsage
from engine.storage.sqlite.writer import Writer
from engine.usage import UsageStore


class SqliteStorage:
    """See Storage. One file, which several processes may have open; threads share one writer and a few readers."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self._path = path
        connection = open_writer(path, synchronous)
        try:
            migrate(connection)
        except BaseException:
            connection.close()
            raise
        self._inode = os.stat(path).st_ino
        self._readers = Readers(path)
        self._writer = Writer(connection, self._check_file)
        self.jobs: JobQueue = SqliteJobQueue(self._writer, self._readers)
        self.clients: RecordStore[Client] = SqliteRecordStore(CLIENTS, self._writer, self._readers)
        self.models: RecordStore[Model] = SqliteRecordStore(MODELS, self._writer, self._readers)
        self.prompts: PromptStore = SqlitePromptStore(self._writer, self._readers)
        self.prompt_flows: RecordStore[PromptFlow] = SqliteRecordStore(PROMPT_FLOWS, self._writer, self._readers)
        self.workers: WorkerStore = SqliteWorkerStore(self._writer, self._readers)
        self.shared: SharedDocuments = SqliteSharedDocuments(self._writer, self._readers)
        self.usage: UsageStore = SqliteUsage(self._readers)
        self.streams: StreamStore = SqliteStreams(self._writer, self._readers)
        self.runs: RecordStore[Run] = SqliteRecordStore(RUNS, self._writer, self._readers)
        self.files: RecordStore[StoredFile] = SqliteRecordStore(FILES, self._writer, self._readers)
        self.contents: FileContents = SqliteFileContents(self._writer, self._readers)
        self.batches: RecordStore[Batch] = SqliteRecordStore(BATCHES, self._writer, self._readers)
        self.run_parts: RecordStore[RunPart] = SqliteRecordStore(RUN_PARTS, self._writer, self._readers)
        self.datasets: RecordStore[Dataset] = SqliteRecordStore(DATASETS, self._writer, self._readers)
        self.dataset_parts: RecordStore[DatasetPart] = SqliteRecordStore(DATASET_PARTS, self._writer, self._readers)
        self.evaluators: RecordStore[Evaluator] = SqliteRecordStore(EVALUATORS, self._writer, self._readers)
        self.evaluations: RecordStore[Evaluation] = SqliteRecordStore(EVALUATIONS, self._writer, self._readers)
        self.evaluation_parts: RecordStore[EvaluationPart] = SqliteRecordStore(
            EVALUATION_PARTS, self._writer, self._readers
        )

    def ping(self) -> None:
        self._check_file()
        with self._readers.borrow() as connection:
            connection.execute("SELECT id FROM jobs LIMIT 1").fetchone()

    def server_time(self) -> datetime | None:
        return None

    def close(self) -> None:
        """Finish the writes asked for, then close; harmless when repeated."""
        self._writer.close()
        self._readers.close()

    def _check_file(self) -> None:
        """A file that was removed or replaced still takes writes, for nobody to find: better to fail."""
        try:
            inode = os.stat(self._path).st_ino
        except OSError as error:
            raise StorageUnavailable(f"the database file is gone: {error.strerror}") from error
        if inode != self._inode:
            raise StorageUnavailable("the database file has been replaced while in use")


def open_sqlite(path: str | Path, synchronous: str = "FULL") -> SqliteStorage:
    """Open the file at `path`, making it and its folder where they are missing.

    `synchronous` FULL: an acknowledged write survives a power cut. NORMAL: commits do not wait for the disk; the last
    ones before a power cut or a crash of the operating system may be lost, but none to a crash or `kill -9` of the
    service. Raises StorageUnavailable, StorageCorrupt, and StorageError for a file of a newer Metasync; their texts
    name the file and what to do.
    """
    file = Path(path)
    try:
        _make_folder(file.parent)
        return SqliteStorage(file, synchronous)
    except StorageError as error:
        error.args = (f"{error} (DB_CONNECTION_STRING names {file.absolute()})",)
        raise


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageUnavailable(f"the folder of the database file cannot be made: {error.strerror}") from error
