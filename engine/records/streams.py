"""Streams: calls that are answered piece by piece while their caller waits, each with a record of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from engine.jobs.job import ZERO, Call, Failure, Lease, Totals, totals_of
from engine.jobs.queue import Page
from engine.llm import JsonObject
from engine.metadata import Metadata

OPERATION = "stream"
"""Under which the usage has the calls of streams."""

STREAM_LOST = "StreamLost"
"""The error type of a record whose process fell silent."""


class StreamStatus(StrEnum):
    STREAMING = "streaming"
    COMPLETED = "completed"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A stream as it was asked for, and what has become of it.

    `additional_prompts` are ids of prompts. `chat` is set where a vendor's endpoint is streamed: its body as the client
    sent it, which says what is asked instead of the prompts and the temperature. `endpoint` is its path.

    `text` is what came (of a chat the first choice's), also of an answer that broke off. `calls` are all that
    were made, failed ones of models before it too. `answer` is the whole answer to a chat as its endpoint gives it
    without streaming, which is kept of those that are `repeatable`, unless it is very long.

    `total_duration` is in seconds; it and `completed_at` are set when the stream has ended, in whichever way. `lease`
    is held by the process that streams it.
    """

    id: str
    client_id: str
    model: str
    temperature: float
    user_prompt: str
    metadata: Metadata
    additional_prompts: tuple[str, ...] = ()
    client_reference: JsonObject | None = None
    chat: JsonObject | None = None
    endpoint: str | None = None
    repeatable: bool = False
    status: StreamStatus = StreamStatus.STREAMING
    text: str = ""
    answer: JsonObject | None = None
    failure: Failure | None = None
    calls: tuple[Call, ...] = ()
    total_duration: float | None = None
    completed_at: datetime | None = None
    lease: Lease | None = None
    revision: int = 0

    @property
    def token(self) -> int:
        """A stream is never held twice."""
        return 0

    @property
    def totals(self) -> Totals:
        return totals_of(self.calls)

    @property
    def answered_by(self) -> str | None:
        """The model whose call gave the text; None where none did."""
        return next((call.model for call in reversed(self.calls) if call.outcome == "ok"), None)


def lost(stream: Stream, now: datetime) -> Stream:
    """The record of a stream whose process has fallen silent, ended: what its call cost nobody knows."""
    call = Call(
        step=OPERATION,
        model=stream.model,
        started_at=stream.metadata.created_at,
        duration=0.0,
        outcome="unknown",
        error_type=STREAM_LOST,
    )
    failure = Failure(
        error_type=STREAM_LOST, message="the process that streamed it stopped giving signs of life", attempts=1, at=now
    )
    return replace(
        stream,
        status=StreamStatus.ERROR,
        failure=failure,
        calls=(call,),
        completed_at=now,
        lease=None,
        metadata=stream.metadata.touched(now, OPERATION),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamQuery:
    """All given conditions hold together; `since` and `until` are of the creation, both included."""

    client_id: str | None = None
    model: str | None = None
    status: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSums:
    """Sums over the streams of one status or one group. `sample_id` is one of them.

    `measured` counts those that made a call; `currencies` are theirs, of which more than two are told as two.
    """

    sample_id: str
    status: StreamStatus
    count: int
    measured: int
    input_tokens: int = 0
    output_tokens: int = 0
    llm_duration: float = 0.0
    total_duration: float = 0.0
    input_cost: Decimal = ZERO
    output_cost: Decimal = ZERO
    currencies: frozenset[str] = frozenset()


class StreamStore(Protocol):
    """The records. Synchronous, from any thread; raises StorageUnavailable.

    `tests/contract/test_stream_store.py` holds back-ends to it.
    """

    def add(self, stream: Stream) -> None:
        """Store a new record, durable on return; harmless when repeated."""
        ...

    def get(self, stream_id: str) -> Stream | None: ...

    def get_many(self, stream_ids: Sequence[str]) -> dict[str, Stream]:
        """Those that exist, by id, with one query; without their prompts, chats, texts and answers."""
        ...

    def end(self, stream: Stream) -> bool:
        """Replace the record whose stored revision equals the given one's; its calls are in the usage from then on.

        False: it was changed meanwhile, or is gone.
        """
        ...

    def renew(self, owner: str, expires_at: datetime) -> int:
        """Move the leases of all streams that `owner` streams to `expires_at`; answers how many there are."""
        ...

    def expired(self, now: datetime, limit: int) -> list[Stream]:
        """Streams whose lease has run out."""
        ...

    def find(self, query: StreamQuery, page: Page) -> list[Stream]:
        """Matching records in the order of their creation, without their prompts, chats, texts and answers."""
        ...

    def count(self, query: StreamQuery) -> int: ...

    def by_status(self, query: StreamQuery) -> list[StreamSums]:
        """Sums for each status that occurs."""
        ...

    def by_group(self, query: StreamQuery, limit: int) -> list[StreamSums]:
        """Sums for each model, reference and set of prompts: the `limit` groups with the most streams."""
        ...
