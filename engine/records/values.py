"""Clients, models, prompts, prompt flows and workers: the stored values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from engine.jobs.job import Lease
from engine.metadata import Metadata
from engine.pricing import Prices
from engine.records.canaries import DEFAULT_SAMPLE, Canary, CanaryStatus


class BudgetPeriod(StrEnum):
    """What a budget's amount is for: a day or a month of UTC, or all of the client's time."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of one currency (as models' prices name it)."""

    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class Budget:
    """What a client may spend in a period; calls priced in another currency are not counted."""

    limit: Money
    period: BudgetPeriod


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """`key_lookup` finds a client by its key alone; `key_salt` and `key_hash` verify it. All hex; never the key."""

    id: str
    name: str
    enabled: bool
    key_lookup: str = field(repr=False)
    key_salt: str = field(repr=False)
    key_hash: str = field(repr=False)
    metadata: Metadata
    budget: Budget | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a model may be asked, by all replicas together; None does not restrict."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


ROUTER = "router"
"""The sdk of models that have no deployment of their own and choose among others; no provider has this name."""


class Strategy(StrEnum):
    """How a router chooses among its targets."""

    WEIGHTED = "weighted"
    CHEAPEST = "cheapest"
    FASTEST = "fastest"
    LEAST_BUSY = "leastBusy"


@dataclass(frozen=True, slots=True)
class Target:
    """A model that a router may choose; `weight` counts with the strategy `weighted` alone."""

    model: str
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A configured deployment at a provider. `key` is the name of the secret, never the secret.

    `fallbacks` are names of models that answer in its place, in order; `fallback_after` is after how many seconds of a
    rate limit they do so too, None: never. `targets` and `strategy` are a router's (sdk ROUTER), whose endpoint, key
    and the like are empty and whose prices are nothing.
    """

    id: str
    name: str
    sdk: str
    endpoint: str
    api_type: str
    api_version: str
    deployment: str
    key: str
    min_temperature: float
    max_temperature: float
    prices: Prices
    metadata: Metadata
    service: str | None = None
    max_token: int | None = None
    max_completion_token: int | None = None
    limits: Limits = Limits()
    fallbacks: tuple[str, ...] = ()
    fallback_after: float | None = None
    targets: tuple[Target, ...] = ()
    strategy: Strategy = Strategy.WEIGHTED
    revision: int = 0


class PromptStatus(StrEnum):
    PUBLISHED = "PUBLISHED"
    DRAFT = "DRAFT"
    ARCHIVE = "ARCHIVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a prompt comes from: the prompt that it was made of, and the run and step that made it."""

    parent_id: str
    run_id: str
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """`client_id` is None for public prompts and set for private ones. `version` 3 and "3" are distinct.

    `lineage` is set where an optimization run made it.
    """

    id: str
    name: str
    version: int | str
    type: str
    status: PromptStatus
    text: str
    client_id: str | None
    is_public: bool
    metadata: Metadata
    lineage: Lineage | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFlow:
    """A named list of prompts, in order. `canaries` are those of now and the latest that were rolled back.

    Canaries are scored by `canary_evaluator`, on `canary_sample` of their jobs; `lease` is of whoever does that.
    """

    id: str
    name: str
    prompt_ids: tuple[str, ...]
    client_id: str | None
    is_public: bool
    metadata: Metadata
    canaries: tuple[Canary, ...] = ()
    canary_evaluator: str | None = None
    canary_sample: float = DEFAULT_SAMPLE
    lease: Lease | None = None
    revision: int = 0

    @property
    def canary_open(self) -> bool:
        """Whether there is a canary to be scored."""
        return any(canary.status is CanaryStatus.RUNNING for canary in self.canaries)

    @property
    def shares(self) -> dict[str, float]:
        """What its canaries get, by the ids of their prompts."""
        return {canary.prompt_id: canary.share for canary in self.canaries if canary.has_share}


class WorkerStatus(StrEnum):
    STOPPED = "stopped"
    RUNNING = "running"
    ERROR = "error"


class WorkerScope(StrEnum):
    CLIENT = "client"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """`poll_interval` in seconds; filters None or empty do not restrict.

    `max_cost` is what the worker may spend from one start to the next.
    """

    poll_interval: int
    max_items_per_batch: int
    model_filter: str | None = None
    operation_filter: str | None = None
    client_reference_filters: Mapping[str, str] | None = None
    max_cost: Money | None = None


@dataclass(frozen=True, slots=True)
class WorkerLease:
    """Which replica (by the incarnation id of its process) runs a worker until when."""

    owner: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A configured consumer. `status` is the desired state; `lease` tells which replica runs it."""

    id: str
    name: str
    client_id: str
    scope: WorkerScope
    status: WorkerStatus
    config: WorkerConfig
    metadata: Metadata
    group: str | None = None
    lease: WorkerLease | None = None
    thread_id: str | None = None
    started_at: datetime | None = None
    revision: int = 0
