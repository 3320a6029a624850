"""Valid values for everybody's tests: each builder takes the fields a test cares about and fills in the rest."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from engine.evaluation.values import Metric, MetricKind
from engine.jobs.job import Attempt, Call, Failure, Job, Lease
from engine.jobs.outcome import Completed, DeadLettered, Outcome, Released, Retried, Settlement
from engine.llm import Complaint
from engine.metadata import Metadata
from engine.pricing import Prices
from engine.records.datasets import Dataset
from engine.records.evaluators import Evaluator
from engine.records.runs import Run
from engine.records.streams import Stream
from engine.records.values import (
    Client,
    Model,
    Prompt,
    PromptFlow,
    PromptStatus,
    Worker,
    WorkerConfig,
    WorkerLease,
    WorkerScope,
    WorkerStatus,
)
from utilities.ids import ObjectIds, new_uuid

IDS = ObjectIds()
NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CLIENT = "11111111-1111-4111-8111-111111111111"
OTHER_CLIENT = "22222222-2222-4222-8222-222222222222"

_OUTCOME_NAMES: dict[type[Outcome], str] = {
    Completed: "completed",
    Retried: "retried",
    DeadLettered: "dead_lettered",
    Released: "released",
}


def metadata(**fields: Any) -> Metadata:
    return Metadata(**{"created_at": NOW, "created_by": CLIENT, **fields})


def make_job(**fields: Any) -> Job:
    """A PENDING job of CLIENT, due now, with a new id. `now` sets when it was created."""
    created_at = fields.pop("now", NOW)
    values: dict[str, Any] = {
        "id": IDS.new(),
        "client_id": CLIENT,
        "operation": "summarize",
        "working_prompts": ("a" * 24,),
        "model": "gpt-test",
        "temperature": 0.5,
        "priority": 5,
        "request_data": {"text": "hello"},
        "metadata": metadata(created_at=created_at),
    }
    return Job(**{**values, **fields})


def make_jobs(count: int, **fields: Any) -> list[Job]:
    return [make_job(id=job_id, **fields) for job_id in IDS.block(count)]


def make_stream(**fields: Any) -> Stream:
    """One of CLIENT that `replica` streams, under a lease of a minute. `now` sets when it was created."""
    created_at = fields.pop("now", NOW)
    values: dict[str, Any] = {
        "id": IDS.new(),
        "client_id": CLIENT,
        "model": "gpt-test",
        "temperature": 0.5,
        "user_prompt": "Tell me.",
        "lease": Lease("replica", created_at + MINUTE),
        "metadata": metadata(created_at=created_at),
    }
    return Stream(**{**values, **fields})


def make_run(**fields: Any) -> Run:
    """A run of CLIENT, just begun: two iterations with each of two models."""
    values: dict[str, Any] = {
        "id": IDS.new(),
        "client_id": CLIENT,
        "initial_prompt_ids": ("a" * 24, "b" * 24),
        "eval_prompt_id": "c" * 24,
        "eval_model": "judge",
        "meta_prompt_id": "d" * 24,
        "meta_model": "editor",
        "working_models": ("m", "n"),
        "max_iterations": 2,
        "temperature": 0.5,
        "priority": 100,
        "request_data": {"text": "hello"},
        "metadata": metadata(),
    }
    return Run(**{**values, **fields})


def make_dataset(**fields: Any) -> Dataset:
    """The first version of a dataset of CLIENT, whose one item is not stored."""
    values: dict[str, Any] = {
        "id": IDS.new(),
        "client_id": CLIENT,
        "name": "examples",
        "version": 1,
        "count": 1,
        "size": 10,
        "starts": (0,),
        "metadata": metadata(),
    }
    return Dataset(**{**values, **fields})


def make_evaluator(**fields: Any) -> Evaluator:
    """An evaluator of CLIENT: exactly what is expected."""
    values: dict[str, Any] = {
        "id": IDS.new(),
        "client_id": CLIENT,
        "name": "exactly",
        "version": 1,
        "metrics": (Metric(kind=MetricKind.EXACT, name="exact"),),
        "metadata": metadata(),
    }
    return Evaluator(**{**values, **fields})


def make_client(**fields: Any) -> Client:
    client_id = fields.pop("id", new_uuid())
    values: dict[str, Any] = {
        "id": client_id,
        "name": "a client",
        "enabled": True,
        "key_lookup": "0a" * 32,
        "key_salt": "1b" * 16,
        "key_hash": "2c" * 32,
        "metadata": metadata(created_by="admin"),
    }
    return Client(**{**values, **fields})


def make_model(**fields: Any) -> Model:
    values: dict[str, Any] = {
        "id": IDS.new(),
        "name": "gpt-test",
        "sdk": "test",
        "endpoint": "http://127.0.0.1:1",
        "api_type": "",
        "api_version": "",
        "deployment": "gpt-test",
        "key": "GPT_TEST_KEY",
        "min_temperature": 0.0,
        "max_temperature": 1.0,
        "prices": Prices(tokens=1_000_000, currency="USD", input=Decimal("2.50"), output=Decimal("10.00")),
        "metadata": metadata(created_by="admin"),
    }
    return Model(**{**values, **fields})


def make_prompt(**fields: Any) -> Prompt:
    """A private prompt of CLIENT, version 1; with `client_id=None` a public one."""
    values: dict[str, Any] = {
        "id": IDS.new(),
        "name": "summary",
        "version": 1,
        "type": "SYSTEM",
        "status": PromptStatus.PUBLISHED,
        "text": "Summarize.",
        "client_id": CLIENT,
        "is_public": fields.get("client_id", CLIENT) is None,
        "metadata": metadata(),
    }
    return Prompt(**{**values, **fields})


def make_flow(**fields: Any) -> PromptFlow:
    """A private prompt flow of CLIENT; with `client_id=None` a public one."""
    values: dict[str, Any] = {
        "id": IDS.new(),
        "name": "flow",
        "prompt_ids": ("a" * 24, "b" * 24),
        "client_id": CLIENT,
        "is_public": fields.get("client_id", CLIENT) is None,
        "metadata": metadata(),
    }
    return PromptFlow(**{**values, **fields})


def make_worker(**fields: Any) -> Worker:
    """A stopped worker of CLIENT with a name of its own."""
    worker_id = fields.pop("id", None) or IDS.new()
    values: dict[str, Any] = {
        "id": worker_id,
        "name": f"worker-{worker_id}",
        "client_id": CLIENT,
        "scope": WorkerScope.CLIENT,
        "status": WorkerStatus.STOPPED,
        "config": WorkerConfig(poll_interval=1, max_items_per_batch=10),
        "metadata": metadata(),
    }
    return Worker(**{**values, **fields})


def make_running_worker(owner: str = "replica", **fields: Any) -> Worker:
    """A worker that `owner` runs, under a lease of a minute."""
    running: dict[str, Any] = {
        "status": WorkerStatus.RUNNING,
        "lease": WorkerLease(owner, NOW + MINUTE),
        "thread_id": "thread-1",
        "started_at": NOW,
    }
    return make_worker(**{**running, **fields})


def make_call(**fields: Any) -> Call:
    """A priced call: 10 and 20 tokens, half a second, a thousandth and two of a dollar."""
    values: dict[str, Any] = {
        "step": "work",
        "model": "gpt-test",
        "started_at": NOW,
        "duration": 0.5,
        "outcome": "ok",
        "input_tokens": 10,
        "output_tokens": 20,
        "input_cost": Decimal("0.001"),
        "output_cost": Decimal("0.002"),
        "currency": "USD",
    }
    return Call(**{**values, **fields})


def make_attempt(token: int = 1, **fields: Any) -> Attempt:
    """A completed attempt with one call."""
    values: dict[str, Any] = {
        "token": token,
        "owner": "holder",
        "started_at": NOW,
        "ended_at": NOW,
        "outcome": "completed",
        "calls": (make_call(),),
    }
    return Attempt(**{**values, **fields})


def make_failure(**fields: Any) -> Failure:
    values: dict[str, Any] = {"error_type": "UnusableAnswer", "message": "not JSON", "attempts": 1, "at": NOW}
    values |= {"status": 200, "complaint": Complaint(type="server_error", param="n")}
    return Failure(**{**values, **fields})


def settlement(job: Job, outcome: Outcome, **fields: Any) -> Settlement:
    """`outcome` for a job as its holder got it from claim, with an attempt of one call on the ledger."""
    attempt = make_attempt(job.token, outcome=_OUTCOME_NAMES.get(type(outcome), "lease_lost"))
    return Settlement(**{"job_id": job.id, "token": job.token, "outcome": outcome, "attempt": attempt, **fields})
