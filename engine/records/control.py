"""The ports through which the API asks something of the workers.

Workers are started and stopped by desired state, which is stored and which a replica's pool follows.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from engine.errors import MetasyncError
from engine.jobs.job import Job, Lease
from engine.llm import Completion, JsonObject, Level, Piece
from engine.records.runs import Run
from engine.records.streams import Stream
from engine.records.values import Model, Worker


class WorkerControl(Protocol):
    """This replica's pool, as seen by the services."""

    def placed(self, worker: Worker, now: datetime) -> Worker:
        """`worker` as a running one that this replica takes: lease, thread_id and started_at are set."""
        ...

    def nudge(self) -> None:
        """Desired state has changed: look at it now rather than at the next tick. Returns at once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What trying a model came to: exactly one of `completion` and `error` is set. `duration` is in seconds.

    `called` are the models that were called, in order; the outcome is the last one's.
    """

    duration: float
    called: tuple[Model, ...] = ()
    completion: Completion | None = None
    error: MetasyncError | None = None


class ModelTrials(Protocol):
    """Tries models out, on the event loop it is first used on."""

    async def run(self, model: Model) -> Trial:
        """One tiny call as a worker would make it, outside of any job. Whatever goes wrong with it is the answer.

        For a router its targets are called in the order of its strategy, until one has no failure that sends on to the
        next. Raises StorageError where they cannot be read.
        """
        ...


class LiveStream(Protocol):
    """A stream that is under way, on one event loop."""

    @property
    def stream(self) -> Stream:
        """As it is stored: at first without an answer, once `next` has come to the end as it ended."""
        ...

    async def next(self) -> Piece | None:
        """The next piece, not empty; None at the end, when the record of all of it is stored.

        Of a stream with a `chat` the pieces are chunks as engine.llm.Piece has them, of any other texts. What was used
        is in the stored record's calls.

        Raises the MetasyncError for which the stream ended, after its record has it. For one reader, who may take his
        time: the provider is kept waiting. A cancelled await loses no piece.
        """
        ...

    def hang_up(self) -> None:
        """Nobody reads any more: drops the call. Returns at once; harmless where the stream has ended."""
        ...


class LiveStreams(Protocol):
    """Makes streams."""

    async def open(self, stream: Stream, admitted: Callable[[], Awaitable[object]] | None = None) -> LiveStream:
        """Stores the record, then begins to ask the model.

        Raises, before anything is stored, UnknownReference, and Refused where no model that could answer has a key.
        `admitted` is awaited when nothing is left but to store; what it raises is raised, and nothing is stored.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """The model takes no call before `until`. `reason` is one of requests, tokens, rate_limit, quota, breaker.

    `text` is for administrators: it may quote what the vendor said to some client's call.
    """

    model: str
    reason: str
    until: datetime
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Percentiles of the last calls that ended well, at most 256, in seconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """How a model does now. Calls, breaker and latencies are those of one `replica`; the rest is common to all.

    `window` is how many calls may be in flight there, None: as many as come. Limits are booked until an instant to come
    or not at all. `breaker` is closed, open or half-open. `error_rate` is the share of the last half minute's calls.
    `would_try` are the models in whose order a job that names this one would be tried, `job_waits_for` is what keeps it
    from the first of them. A router's `pause` is that.
    """

    replica: str
    pause: Pause | None = None
    in_flight: int = 0
    waiting: int = 0
    window: int | None = None
    requests_booked_until: datetime | None = None
    tokens_booked_until: datetime | None = None
    breaker: str = "closed"
    error_rate: float = 0.0
    latencies: Latencies | None = None
    would_try: tuple[str, ...] = ()
    job_waits_for: Pause | None = None


class ModelStates(Protocol):
    """What this replica knows of models, with what others have announced. Synchronous, from any thread."""

    def of(self, models: Sequence[Model]) -> list[ModelState]:
        """In the same order; by a few queries, however many they are. Raises StorageUnavailable."""
        ...


class DirectRuns(Protocol):
    """Runs jobs here at once that the caller has claimed for this replica. Synchronous, from any thread but loops'."""

    @property
    def most(self) -> int:
        """How many jobs are to be run at a time at most."""
        ...

    @property
    def in_flight(self) -> int:
        """Jobs handed over whose attempt has not ended yet."""
        ...

    @property
    def draining(self) -> bool:
        """The process is about to end: what is handed over now is given back at once."""
        ...

    def has_money(self, client_id: str) -> bool:
        """Whether the client's jobs are worth starting, by what is known of its budget."""
        ...

    def levels(self, model_name: str) -> Sequence[Level]:
        """What is left of the model's own limits as this process knows them; nothing where it has none."""
        ...

    def lease(self, now: datetime) -> Lease:
        """What a job is to be claimed under for `run`."""
        ...

    def run(self, job: Job, asked_at: float) -> None:
        """Works on a job as a worker would, and keeps its lease. Returns at once; JobSignals.settled tells the end.

        It was claimed under `lease` at `asked_at`, an instant of the steady clock; a job that cannot be run here is
        recovered when that lease runs out.
        """
        ...


class RunControl(Protocol):
    """This replica's optimizer, as seen by the services. Synchronous; raises StorageUnavailable."""

    def begin(self, run: Run) -> Run:
        """Stores a new run, with its first job where it has no dataset; answers it with that job's id.

        Raises InvalidField and UnknownReference where it cannot be as it was asked for.
        """
        ...

    def withdraw(self, run: Run) -> None:
        """Takes the jobs back that the stored run's `withdrawal` means; whoever drives it takes back what is missed."""
        ...

    def promote(self, run: Run, *, by: str, force: bool) -> Run:
        """Publishes the winner of a run. Raises Refused where it has none, or none that is proven (without `force`)."""
        ...

    def report(self, run: Run) -> JsonObject:
        """What the run has found, as plain JSON under wire names."""
        ...

    def wake(self, run_id: str) -> None:
        """The stored run has changed: look at it now. Returns at once."""
        ...

    def wake_evaluation(self, evaluation_id: str | None) -> None:
        """The same for an evaluation; None: there is a new one."""
        ...
