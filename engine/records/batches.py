"""Batches of OpenAI's batch API: what was asked for, and how far they are."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from engine.errors import TransitionRefused
from engine.jobs.job import Lease
from engine.llm import Usage
from engine.metadata import Metadata

OPERATION = "batch"
"""Of the jobs that a batch makes."""

WINDOW = timedelta(hours=24)
"""How long a batch may take: what OpenAI calls the completion window of 24h."""


class BatchStatus(StrEnum):
    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


OPEN = frozenset({BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.CANCELLING})


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProblem:
    """What is wrong with the input. `line` counts from 1; None where it is not about a line."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the step under way is: a crash goes on from here.

    `lines` of the input, which end at `offset` bytes, are dealt with; `requests` are those that are not blank. Of these
    `completed` and `failed` are in the two files, whose sizes in bytes are `output` and `errors`.
    """

    lines: int = 0
    requests: int = 0
    offset: int = 0
    completed: int = 0
    failed: int = 0
    output: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch as it is stored.

    `pairs` is the metadata that its client gave it. `first_job_id` is the id of the first line's job; those of the
    others follow it. `inserted` lines have become jobs. `ending` is the status in which it will end. `completed` and
    `failed` count lines. The first two of `result_file_ids` are the output and the errors that are being written, the
    others were given up; `output_file_id` and `error_file_id` are what came of them. Instants are None until the batch
    came to them.
    """

    id: str
    client_id: str
    endpoint: str
    input_file_id: str
    expires_at: datetime
    metadata: Metadata
    priority: int = 100
    pairs: Mapping[str, str] | None = None
    output_seconds: int | None = None
    status: BatchStatus = BatchStatus.VALIDATING
    ending: BatchStatus = BatchStatus.COMPLETED
    problems: tuple[BatchProblem, ...] = ()
    model: str | None = None
    first_job_id: str | None = None
    total: int = 0
    inserted: int = 0
    completed: int = 0
    failed: int = 0
    usage: Usage = field(default=Usage())
    progress: Progress = field(default=Progress())
    withdrawn: bool = False
    result_file_ids: tuple[str, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: datetime | None = None
    finalizing_at: datetime | None = None
    completed_at: datetime | None = None
    failed_at: datetime | None = None
    expired_at: datetime | None = None
    cancelling_at: datetime | None = None
    cancelled_at: datetime | None = None
    lease: Lease | None = None
    revision: int = 0

    @property
    def is_open(self) -> bool:
        """Whether there is something left to do for whoever drives it."""
        return self.status in OPEN


def cancelling(batch: Batch, now: datetime, *, by: str) -> Batch:
    """`batch` as one that is to be ended; as it is where that is under way. Raises TransitionRefused for one that has
    ended, or whose results are being written."""
    if batch.status is BatchStatus.CANCELLING:
        return batch
    if batch.status not in (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS):
        raise TransitionRefused(f"Cannot cancel a batch with status '{batch.status}'.")
    return replace(
        batch,
        status=BatchStatus.CANCELLING,
        ending=BatchStatus.CANCELLED,
        cancelling_at=now,
        progress=Progress(),
        metadata=batch.metadata.touched(now, by),
    )
