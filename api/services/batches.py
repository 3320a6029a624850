"""Batches of OpenAI's batch API: accepted, looked at, and cancelled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import orjson

from api.services.changing import changed
from api.services.files import FileService
from api.services.idempotency import IdempotencyKeys, RequestKey
from api.services.job_drafts import Maker
from api.services.waits import Waits
from engine.batches.lines import ENDPOINTS, LONGEST_LINE
from engine.errors import Duplicate, InvalidField, NotFound, StorageCorrupt, TransitionRefused
from engine.jobs.job import Job
from engine.jobs.queue import JobQueue, Page
from engine.metadata import Metadata
from engine.records.batches import OPERATION, WINDOW, Batch, BatchStatus, cancelling
from engine.records.files import BATCH, CHUNK_BYTES, StoredFile
from engine.records.store import RecordStore, Where
from utilities.clock import Clock
from utilities.ids import ObjectIds

PRIORITY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchDraft:
    """A batch as it was asked for. `output_seconds` is how long its results are kept; None: until they are deleted."""

    input_file_id: str
    endpoint: str
    pairs: dict[str, str] | None = None
    output_seconds: int | None = None
    priority: int = PRIORITY


class BatchService:
    """Synchronous. `wake` tells whoever drives batches here that one was added or changed."""

    def __init__(
        self,
        batches: RecordStore[Batch],
        files: FileService,
        queue: JobQueue,
        waits: Waits,
        *,
        wake: Callable[[str | None], None],
        clock: Clock,
        ids: ObjectIds,
    ) -> None:
        self._batches = batches
        self._files = files
        self._queue = queue
        self._waits = waits
        self._wake = wake
        self._clock = clock
        self._ids = ids
        self._keys = IdempotencyKeys(queue)

    def create(self, draft: BatchDraft, maker: Maker, key: RequestKey | None) -> tuple[Batch, bool]:
        """The batch, and whether an earlier request with the same key made it. Raises InvalidField and KeyReused."""
        owner, now, hexadecimal = maker.owner.client_id, self._clock.now(), self._ids.new()
        if key is not None:
            record = self._keys.reserve(owner, key, hexadecimal, 1, now)
            standing = self._batches.get(f"batch_{record.first_id}")
            if standing is not None:
                return standing, True
            hexadecimal = record.first_id
        self._check(draft, owner)
        batch = Batch(
            id=f"batch_{hexadecimal}",
            client_id=owner,
            endpoint=draft.endpoint,
            input_file_id=draft.input_file_id,
            expires_at=now + WINDOW,
            priority=draft.priority,
            pairs=draft.pairs,
            output_seconds=draft.output_seconds,
            metadata=Metadata(created_at=now, created_by=maker.by),
        )
        try:
            self._batches.add(batch)
        except Duplicate:
            return self.get(batch.id, owner), True
        self._wake(None)
        return batch, False

    def get(self, batch_id: str, visible_to: str | None) -> Batch:
        """Raises NotFound, alike for what is not there and what is another client's."""
        return _found(self._batches.get(batch_id), batch_id, visible_to)

    def list(self, owner: str | None, after: str | None, limit: int) -> Sequence[Batch]:
        """The newest first."""
        equals = {} if owner is None else {"clientId": [owner]}
        return self._batches.find(Where(equals=equals, after=after), Page(limit=limit, newest_first=True))

    def cancel(self, batch_id: str, visible_to: str | None, by: str, key: RequestKey | None) -> tuple[Batch, bool]:
        """The batch, and whether an earlier request had the same key: then it may have ended since.

        Raises NotFound, TransitionRefused for one that has ended, and KeyReused.
        """
        if key is None:
            return self._cancelled(batch_id, visible_to, by), False
        found, now = self.get(batch_id, visible_to), self._clock.now()
        replayed = self._keys.standing(found.client_id, key, now) is not None
        if not replayed:
            cancelling(found, now, by=by)  # what is refused takes no key
            self._keys.reserve(found.client_id, key, found.id.removeprefix("batch_"), 1, now)
        try:
            return self._cancelled(batch_id, visible_to, by), replayed
        except TransitionRefused:
            found = self.get(batch_id, visible_to)
            if not replayed or found.cancelling_at is None:
                raise
            return found, True

    def _cancelled(self, batch_id: str, visible_to: str | None, by: str) -> Batch:
        batch = changed(
            self._batches,
            batch_id,
            lambda found: cancelling(_found(found, batch_id, visible_to), self._clock.now(), by=by),
        )
        self._wake(batch_id)
        return batch

    def waits_for(self, batch: Batch) -> tuple[str, str] | None:
        """What keeps an open batch from going on, as a stable word and a sentence; None where nothing does."""
        if batch.status not in (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS):
            return None
        job = self._waits.pending(batch.client_id, OPERATION, "batchId", batch.id) or self._expected(batch)
        return self._waits.for_(job)

    def _expected(self, batch: Batch) -> Job:
        """A job as the batch will make them."""
        return Job(
            id=self._ids.new(),
            client_id=batch.client_id,
            operation=OPERATION,
            working_prompts=(),
            model=batch.model or self._first_model(batch),
            temperature=0.0,
            priority=batch.priority,
            request_data={},
            metadata=Metadata(created_at=self._clock.now()),
            client_reference={"batchId": batch.id},
            endpoint=batch.endpoint,
        )

    def _first_model(self, batch: Batch) -> str:
        """The one that the input's first request names; nothing where that cannot be read."""
        start = bytearray()
        try:
            file = self._files.get(batch.input_file_id, batch.client_id)
            for chunk in islice(self._files.chunks(file), LONGEST_LINE // CHUNK_BYTES):
                start += chunk
                if b"\n" in start.lstrip():
                    break
            return str(orjson.loads(start.lstrip().partition(b"\n")[0])["body"]["model"])
        except (NotFound, StorageCorrupt, orjson.JSONDecodeError, KeyError, TypeError):
            return ""

    def _check(self, draft: BatchDraft, owner: str) -> None:
        if draft.endpoint not in ENDPOINTS:
            raise InvalidField("endpoint", f"must be one of: {', '.join(ENDPOINTS)}")
        try:
            file: StoredFile = self._files.get(draft.input_file_id, owner)
        except NotFound as error:
            raise InvalidField("input_file_id", f"there is no file {draft.input_file_id}") from error
        if file.purpose != BATCH:
            raise InvalidField("input_file_id", f"the file's purpose is {file.purpose}, and {BATCH} is needed")


def _found(batch: Batch | None, batch_id: str, visible_to: str | None) -> Batch:
    if batch is None or visible_to not in (None, batch.client_id):
        raise NotFound("Batch", batch_id)
    return batch
