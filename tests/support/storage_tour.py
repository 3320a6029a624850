"""Every operation of every storage protocol, in every form that makes another command: for tests that watch the driver.

`tour` runs them all on an open storage and answers the names of the methods it called, so that a test can show that
none was left out.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from engine.jobs.changes import deleted
from engine.jobs.job import Job
from engine.jobs.outcome import Completed, DeadLettered, Expired, Outcome, Released, Retried
from engine.jobs.queue import ClaimFilter, ClaimRequest, Hold, IdempotencyRecord, JobQuery, Page
from engine.jobs.states import JobState
from engine.records.datasets import DatasetPart, part_id
from engine.records.evaluations import Contender, Evaluation, EvaluationPart, ItemsAt
from engine.records.searches import RunPart
from engine.records.store import Storage, Where
from engine.records.streams import StreamQuery, StreamStatus
from engine.usage import UsageQuery
from tests.support.factories import (
    CLIENT,
    IDS,
    MINUTE,
    NOW,
    OTHER_CLIENT,
    make_attempt,
    make_call,
    make_client,
    make_dataset,
    make_evaluator,
    make_failure,
    make_flow,
    make_jobs,
    make_model,
    make_prompt,
    make_run,
    make_running_worker,
    make_stream,
    make_worker,
    metadata,
    settlement,
)

LATER = NOW + timedelta(hours=1)
FILTERS = (
    {},
    {"operation": "summarize"},
    {"model": "gpt-test"},
    {"operation": "summarize", "model": "gpt-test"},
    {"references": ("team=blue",)},
    {"references": ("team=blue", "rank=1"), "operation": "summarize"},
    {"references": ("team=blue",), "model": "gpt-test"},
)
QUERIES = (
    {},
    {"status": JobState.PENDING},
    {"operation": "summarize"},
    {"model": "gpt-test"},
    {"status": JobState.PENDING, "operation": "summarize", "model": "gpt-test"},
    {"references": ("team=blue",)},
    {"references": ("team=blue",), "status": JobState.PENDING},
    {"client_job_id": "mine"},
    {"priority": 5},
)

STREAM_QUERIES: tuple[dict[str, Any], ...] = (
    {},
    {"client_id": CLIENT},
    {"client_id": CLIENT, "status": "completed", "model": "gpt-test", "since": NOW, "until": LATER},
    {"client_id": CLIENT, "references": ("team=blue",)},
    {"since": NOW},
)


class Recorder:
    """Passes every call on and notes its name."""

    def __init__(self, inner: Any, names: set[str]) -> None:
        self._inner = inner
        self._names = names

    def __getattr__(self, name: str) -> Callable[..., Any]:
        self._names.add(name)
        return getattr(self._inner, name)


def public_methods(protocol: type) -> set[str]:
    """The names of a protocol's methods, inherited ones included."""
    return {
        name for base in protocol.__mro__ for name, value in vars(base).items() if callable(value) and name[0] != "_"
    }


def tour(storage: Storage) -> dict[str, set[str]]:
    """The methods called, by protocol: jobs, records, prompts, workers, shared, usage, streams, storage."""
    called: dict[str, set[str]] = {
        name: set() for name in ("jobs", "records", "prompts", "workers", "shared", "usage", "streams", "storage")
    }
    _jobs(Recorder(storage.jobs, called["jobs"]))
    for store, records in (
        (storage.clients, [make_client(), make_client()]),
        (storage.models, [make_model(), make_model(name="other")]),
        (storage.prompt_flows, [make_flow(), make_flow(client_id=None)]),
        (storage.runs, [make_run(), make_run()]),
        (storage.datasets, [make_dataset(), make_dataset(version=2)]),
        (storage.dataset_parts, [_dataset_part(0), _dataset_part(1)]),
        (storage.evaluators, [make_evaluator(), make_evaluator(version=2)]),
        (storage.evaluations, [_evaluation(), _evaluation()]),
        (storage.evaluation_parts, [_evaluation_part(0), _evaluation_part(1)]),
        (storage.run_parts, [_run_part(0), _run_part(1)]),
    ):
        _records(Recorder(store, called["records"]), records)
    storage.clients.find(Where(equals={"keyLookup": ["0a" * 32]}), Page(limit=1))
    storage.models.find(Where(equals={"name": ["gpt-test"]}), Page(limit=1))
    storage.prompt_flows.find(Where(equals={"canaryOpen": [True]}), Page(limit=10))
    storage.run_parts.find(Where(equals={"runId": ["a" * 24]}), Page(limit=10))
    for kind in (storage.datasets, storage.evaluators):
        _versions(kind)
    for kind in (storage.runs, storage.evaluations):
        _driven(kind)
    _prompts(Recorder(storage.prompts, called["prompts"]))
    _workers(Recorder(storage.workers, called["workers"]))
    _shared(Recorder(storage.shared, called["shared"]))
    _streams(Recorder(storage.streams, called["streams"]))
    _usage(Recorder(storage.usage, called["usage"]))
    whole = Recorder(storage, called["storage"])
    whole.ping()
    whole.server_time()
    return called


def _jobs(queue: Any) -> None:
    crowd = make_jobs(120, client_reference={"team": "blue", "rank": 1}, client_job_id="mine")
    others = make_jobs(40, client_id=OTHER_CLIENT)
    queue.insert(crowd)
    queue.insert(others)
    queue.insert(crowd)
    queue.insert(make_jobs(1))
    queue.insert(make_jobs(20, due_at=LATER))
    _held(queue)
    _outside(queue, others)
    _asked(queue, crowd[-1])
    queue.reserve(_reservation(expires_at=NOW), NOW)
    queue.reserve(_reservation(expires_at=LATER), NOW)
    queue.forget_expired(LATER)


def _reservation(expires_at: datetime) -> IdempotencyRecord:
    return IdempotencyRecord(
        client_id=CLIENT,
        key="once",
        fingerprint="f",
        first_id="a" * 24,
        count=1,
        created_at=NOW,
        expires_at=expires_at,
    )


def _claims(queue: Any) -> list[Job]:
    claimed = []
    for wanted in FILTERS:
        request = ClaimRequest(
            filter=ClaimFilter(client_id=CLIENT, **wanted), owner="o", expires_at=NOW + MINUTE, limit=5
        )
        claimed += queue.claim(request, NOW)
        queue.claim(replace(request, limit=1, caps={"gpt-test": 1, "other": 0}), NOW)
        queue.waiting_clients(ClaimFilter(**wanted), None, 10)
        queue.waiting_clients(ClaimFilter(**wanted), CLIENT, 10)
    return claimed


def _held(queue: Any) -> None:
    claimed = _claims(queue)
    queue.extend([Hold(job.id, job.token) for job in claimed], NOW + 2 * MINUTE, NOW)
    queue.extend([Hold(claimed[0].id, 99)], NOW + 2 * MINUTE, NOW)
    outcomes: list[Outcome] = [
        Completed(result={"answer": 1}, eval_result={"score": 1}, suggested_prompt_id="a" * 24),
        Retried(make_failure(), LATER, charged=True),
        Retried(make_failure(), NOW, charged=False),
        DeadLettered(make_failure()),
        Released("drain"),
        Expired(),
    ]
    settled = [settlement(job, outcome) for job, outcome in zip(claimed, outcomes, strict=False)]
    queue.settle(settled, NOW)
    queue.settle(settled, NOW)
    late = claimed[len(outcomes)]
    queue.book(late.id, make_attempt(late.token))
    queue.book(late.id, make_attempt(late.token))
    queue.settle([settlement(late, Released("late"))], NOW)
    queue.settle([settlement(claimed[7], Expired(), only_expired=True)], NOW + 5 * MINUTE)
    queue.next_due()
    queue.expired(NOW + 5 * MINUTE, 10)
    queue.promote(LATER + MINUTE, 10)


def _outside(queue: Any, others: list[Job]) -> None:
    kept = list(queue.get_many([job.id for job in others[:5]]).values())
    queue.compare_and_set(kept, NOW)
    queue.compare_and_set(kept, NOW)
    fresh = queue.get(others[6].id)
    queue.compare_and_set([deleted(fresh, NOW, by="admin")], NOW)
    queue.get(others[6].id)


def _asked(queue: Any, job: Job) -> None:
    for client_id in (None, CLIENT):
        for conditions in QUERIES:
            query = JobQuery(client_id=client_id, **conditions)
            queue.find(query, Page(limit=10, skip=1))
            queue.find(query, Page(limit=10, newest_first=True))
            queue.count(query)
            queue.summary(query)
    queue.ahead_of(job, 100)


def _records(store: Any, records: list[Any]) -> None:
    for record in records:
        store.add(record)
    found = store.get(records[0].id)
    store.get_many([record.id for record in records])
    store.compare_and_set(found)
    store.compare_and_set(found)
    store.find(Where(), Page())
    store.find(Where(equals={"name": ["a client", "gpt-test"]}), Page(newest_first=True))
    store.count(Where())
    gone = store.get(records[1].id)
    store.compare_and_set(replace(gone, metadata=gone.metadata.deleted(NOW, "admin")))


def _versions(store: Any) -> None:
    for equals in ({"clientId": [CLIENT]}, {"clientId": [CLIENT], "name": ["examples"]}, {"name": ["examples"]}):
        store.find(Where(equals=equals), Page(limit=10, newest_first=True))
        store.count(Where(equals=equals))


def _driven(store: Any) -> None:
    """Runs and evaluations, as they are listed and taken up, and as those on a dataset are counted."""
    store.find(Where(equals={"open": [True]}), Page(limit=10))
    for equals in ({"clientId": [CLIENT]}, {"clientId": [CLIENT], "status": ["running"]}, {"status": ["running"]}):
        store.find(Where(equals=equals), Page(limit=10))
        store.count(Where(equals=equals))
    for field in ("datasetId", "search.datasetId"):
        store.count(Where(equals={"clientId": [CLIENT], field: ["d" * 24]}))
        store.count(Where(equals={"open": [True], field: ["d" * 24]}))


def _evaluation() -> Evaluation:
    return Evaluation(
        id=IDS.new(),
        client_id=CLIENT,
        name="tour",
        dataset_id="d" * 24,
        evaluator_id="e" * 24,
        items=ItemsAt(id="d" * 24, count=1, starts=(0,)),
        metrics=(),
        contenders=(Contender(instructions="Answer."),),
        models=("gpt-test",),
        temperature=0.0,
        response_format="text",
        priority=5,
        max_parallel=1,
        seed=1,
        metadata=metadata(),
    )


def _evaluation_part(number: int) -> EvaluationPart:
    return EvaluationPart(id=f"tour-{number}", evaluation_id="tour", results=(), metadata=metadata())


def _run_part(number: int) -> RunPart:
    return RunPart(id=f"tour-0-{number}", run_id="a" * 24, text="", metadata=metadata())


def _dataset_part(number: int) -> DatasetPart:
    return DatasetPart(id=part_id("tour", number), dataset_id="tour", items=(), metadata=metadata())


def _prompts(store: Any) -> None:
    _records(store, [make_prompt(), make_prompt(client_id=None)])
    for where in (
        Where(visible_to=CLIENT),
        Where(visible_to=CLIENT, equals={"version": [2, "2"]}),
        Where(equals={"clientId": [CLIENT]}),
        Where(equals={"isPublic": [True]}),
    ):
        store.find(where, Page(limit=10))
        store.count(where)
    store.highest_version("summary", "SYSTEM", CLIENT)
    store.highest_version("summary", "SYSTEM", None)


def _shared(documents: Any) -> None:
    for number in (1, 2, 2):
        documents.change("key", lambda _, value=number: ({"value": value}, None), NOW)
    documents.get_many(["key", "other"])
    documents.forget_idle(LATER)


def _usage(usage: Any) -> None:
    for client_id in (None, CLIENT):
        usage.rows(UsageQuery(first=NOW.date(), last=LATER.date(), client_id=client_id))


def _streams(store: Any) -> None:
    for stream in (make_stream(), make_stream(client_id=OTHER_CLIENT)):
        store.add(stream)
        store.add(stream)
        store.end(replace(stream, calls=(make_call(),), lease=None, status=StreamStatus.COMPLETED))
        store.end(stream)
        store.get(stream.id)
        store.get_many([stream.id])
    store.add(make_stream())
    store.renew("replica", LATER)
    store.expired(LATER, 10)
    for conditions in STREAM_QUERIES:
        query = StreamQuery(**conditions)
        store.find(query, Page(limit=10, skip=1))
        store.find(query, Page(limit=10, newest_first=True))
        store.count(query)
        store.by_status(query)
        store.by_group(query, 10)


def _workers(store: Any) -> None:
    _records(store, [make_worker(), make_worker()])
    store.add(make_running_worker("replica-1"))
    store.find(Where(equals={"clientId": [CLIENT], "status": ["running"]}), Page())
    for equals in ({"clientId": [CLIENT]}, {"scope": ["all"]}, {"clientId": [CLIENT], "scope": ["client"]}):
        store.find(Where(equals=equals), Page(limit=10))
        store.count(Where(equals=equals))
    store.running()
    store.renew("replica-1", LATER)
