"""Workers: bodies in and out."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, model_validator

from api.models.base import LONGEST_TEXT, Answer, Body, Plain, Resource, resource_to_wire
from api.models.job import Text
from api.models.money import BudgetStateModel, MoneyModel, money_to_wire, state_to_wire
from api.services.worker_batches import BatchResult, Failed
from api.services.workers import WorkerDraft
from engine.budgets import BudgetState
from engine.records.values import Worker, WorkerScope, WorkerStatus
from engine.records.values import WorkerConfig as Config

MOST_IDS = 10_000
MOST_FILTERS = 100

Wire = dict[str, Any]
Group = Annotated[str, Field(min_length=1, max_length=100), Plain]


class WorkerConfig(Body):
    """`pollInterval` in seconds; filters that are null or empty do not restrict."""

    poll_interval: int = Field(ge=1, le=3600)
    max_items_per_batch: int = Field(ge=1, le=1000)
    model_filter: Text | None = None
    operation_filter: Text | None = None
    client_reference_filters: dict[Text, Text] | None = None
    max_cost: MoneyModel | None = Field(None, description="What it may spend from one start to the next.")

    @model_validator(mode="after")
    def _few_filters(self) -> "WorkerConfig":
        if self.client_reference_filters is not None and len(self.client_reference_filters) > MOST_FILTERS:
            raise ValueError(f"clientReferenceFilters are more than {MOST_FILTERS}")
        return self

    def to_domain(self) -> Config:
        return Config(
            poll_interval=self.poll_interval,
            max_items_per_batch=self.max_items_per_batch,
            model_filter=self.model_filter,
            operation_filter=self.operation_filter,
            client_reference_filters=self.client_reference_filters,
            max_cost=None if self.max_cost is None else self.max_cost.to_domain(),
        )


class WorkerCreateRequest(Body):
    """`workerId` becomes the name. `scope` is `all` for a worker that serves all clients: for admins."""

    worker_id: str = Field(min_length=1, max_length=100)
    config: WorkerConfig
    group: Group | None = None
    scope: WorkerScope = WorkerScope.CLIENT

    def draft(self) -> WorkerDraft:
        return WorkerDraft(name=self.worker_id, config=self.config.to_domain(), group=self.group, scope=self.scope)


class WorkerBatchCreateRequest(Body):
    worker_id_prefix: str = Field(min_length=1, max_length=90)
    count: int = Field(ge=1, le=100)
    config: WorkerConfig
    group: Group | None = None
    scope: WorkerScope = WorkerScope.CLIENT

    def draft(self) -> WorkerDraft:
        config = self.config.to_domain()
        return WorkerDraft(name=self.worker_id_prefix, config=config, group=self.group, scope=self.scope)


class WorkerUpdateRequest(Body):
    config: WorkerConfig | None = None


class BatchAction(StrEnum):
    START = "start"
    STOP = "stop"


class WorkerBatchUpdateRequest(Body):
    """The workers of `group` or, without one, those of `workerIds`."""

    action: BatchAction
    worker_ids: list[Text] | None = None
    group: str | None = None

    @model_validator(mode="after")
    def _names_some(self) -> "WorkerBatchUpdateRequest":
        if not self.group and not self.worker_ids:
            raise ValueError("workerIds or group is needed")
        if self.worker_ids is not None and len(self.worker_ids) > MOST_IDS:
            raise ValueError(f"workerIds are more than {MOST_IDS}")
        if self.group is not None and len(self.group) > LONGEST_TEXT:
            raise ValueError(f"group is longer than {LONGEST_TEXT} characters")
        return self


class WorkerResponse(Resource):
    """`workerId` is the stored id, `name` what it was called at its creation."""

    worker_id: str
    name: str
    client_id: str
    status: WorkerStatus
    scope: WorkerScope
    config: WorkerConfig
    group: str | None
    thread_info: Wire | None
    budget_state: BudgetStateModel | None = Field(
        description="How its maxCost stands: in GET /workers/{worker_id}; null in other answers, without one, and if "
        "it does not run."
    )


class WorkerBatchCreateResponse(Answer):
    created: list[WorkerResponse]
    failed: list[Wire]
    total_requested: int = Field(alias="total_requested")
    total_created: int = Field(alias="total_created")


class WorkerBatchUpdateResponse(Answer):
    updated: list[WorkerResponse]
    failed: list[Wire]
    action: BatchAction
    total_requested: int = Field(alias="total_requested")
    total_updated: int = Field(alias="total_updated")


class WorkerSummaryResponse(Answer):
    running: int = 0
    stopped: int = 0
    error: int = 0
    total: int = 0
    running_ids: list[str] = Field(alias="running_ids")
    stopped_ids: list[str] = Field(alias="stopped_ids")
    error_ids: list[str] = Field(alias="error_ids")


def worker_to_wire(worker: Worker, state: BudgetState | None = None) -> Wire:
    """The fields of WorkerResponse."""
    runs = worker.status is WorkerStatus.RUNNING and worker.thread_id is not None
    return {
        "workerId": worker.id,
        "name": worker.name,
        "clientId": worker.client_id,
        "status": worker.status,
        "scope": worker.scope,
        "config": config_to_wire(worker.config),
        "group": worker.group,
        "threadInfo": {"threadId": worker.thread_id, "startedAt": worker.started_at} if runs else None,
        "budgetState": state_to_wire(state),
        **resource_to_wire(worker),
    }


def config_to_wire(config: Config) -> Wire:
    return {
        "pollInterval": config.poll_interval,
        "maxItemsPerBatch": config.max_items_per_batch,
        "modelFilter": config.model_filter,
        "operationFilter": config.operation_filter,
        "clientReferenceFilters": config.client_reference_filters,
        "maxCost": None if config.max_cost is None else money_to_wire(config.max_cost),
    }


def created_to_wire(result: BatchResult) -> Wire:
    """The fields of WorkerBatchCreateResponse."""
    return {
        "created": [worker_to_wire(worker) for worker in result.done],
        "failed": [_failed_to_wire(failed) for failed in result.failed],
        "total_requested": result.requested,
        "total_created": len(result.done),
    }


def updated_to_wire(result: BatchResult, action: BatchAction) -> Wire:
    """The fields of WorkerBatchUpdateResponse."""
    return {
        "updated": [worker_to_wire(worker) for worker in result.done],
        "failed": [_failed_to_wire(failed) for failed in result.failed],
        "action": action,
        "total_requested": result.requested,
        "total_updated": len(result.done),
    }


def _failed_to_wire(failed: Failed) -> Wire:
    return {"workerId": failed.worker, "error": failed.error}


def worker_summary_to_wire(workers: Sequence[Worker]) -> Wire:
    """The fields of WorkerSummaryResponse."""
    ids = {status: [worker.id for worker in workers if worker.status is status] for status in WorkerStatus}
    counts = {str(status): len(found) for status, found in ids.items()}
    return {**counts, "total": len(workers), **{f"{status}_ids": found for status, found in ids.items()}}
