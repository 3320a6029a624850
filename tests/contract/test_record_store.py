"""The record stores on every back-end: clients, models, prompts, prompt flows, workers, runs."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from engine.errors import Duplicate
from engine.evaluation.statistics import Interval
from engine.evaluation.values import Metric, MetricKind
from engine.jobs.job import Lease, Totals
from engine.jobs.queue import Page
from engine.pricing import Prices
from engine.records.canaries import Canary, CanaryStatus, Finding, Pair
from engine.records.datasets import DatasetItem, DatasetPart
from engine.records.runs import Iteration, ModelRun, RunStatus, Withdrawal
from engine.records.store import Storage, Where
from engine.records.values import (
    Limits,
    Strategy,
    Target,
    WorkerConfig,
    WorkerLease,
    WorkerScope,
    WorkerStatus,
)
from tests.support.backends import Database
from tests.support.factories import (
    CLIENT,
    MINUTE,
    NOW,
    OTHER_CLIENT,
    make_client,
    make_dataset,
    make_evaluator,
    make_flow,
    make_model,
    make_prompt,
    make_run,
    make_running_worker,
    make_worker,
    metadata,
)

ALL = Page()
KINDS: dict[str, Callable[..., Any]] = {
    "clients": make_client,
    "models": make_model,
    "prompts": make_prompt,
    "prompt_flows": make_flow,
    "workers": make_worker,
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The name of a store; a test that uses it runs for each kind of record."""
    return str(request.param)


def several(kind: str, count: int) -> list[Any]:
    names = [{"name": f"name-{place}"} for place in range(count)]
    return [KINDS[kind](**fields) for fields in names]


def gone(record: Any) -> Any:
    return replace(record, metadata=record.metadata.deleted(NOW, "admin"))


FULL = [
    make_client(enabled=False, metadata=metadata(updated_at=NOW, updated_by="admin", archived_at=NOW)),
    make_model(service="s", max_token=1, max_completion_token=2, api_type="azure", api_version="v"),
    make_model(
        prices=Prices(tokens=1, currency="EUR", input=Decimal(2), output=Decimal(3), cached_input=Decimal("0.1"))
    ),
    make_model(prices=Prices(tokens=1000, currency="EUR", input=Decimal("0.000000000000001"), output=Decimal("1E+5"))),
    make_model(
        sdk="router",
        limits=Limits(requests_per_minute=1, tokens_per_minute=2**53 - 1, concurrency=3),
        fallbacks=("a", "b"),
        fallback_after=1.5,
        targets=(Target("c"), Target("d", 1000)),
        strategy=Strategy.LEAST_BUSY,
    ),
    make_prompt(version="3.1-beta", text="a\n\x00ü🙂"),
    make_prompt(client_id=None),
    make_flow(prompt_ids=()),
    make_flow(
        canaries=(
            Canary(id="t", prompt_id="c", replaces="a" * 24, share=0.25, since=NOW),
            Canary(
                id="u",
                prompt_id="d",
                replaces="b" * 24,
                share=0.1,
                since=NOW,
                status=CanaryStatus.ROLLED_BACK,
                pairs=(Pair("j", -0.5), Pair("k", None)),
                passed=2,
                looks=1,
                finding=Finding(pairs=20, mean=-0.5, interval=Interval(-0.6, -0.4), worse=0.001, better=1.0, at=NOW),
                reason="r",
                ended_at=NOW,
            ),
        ),
        canary_evaluator="e" * 24,
        canary_sample=0.75,
        lease=Lease("replica", NOW),
    ),
    make_worker(
        scope=WorkerScope.ALL,
        group="g",
        config=WorkerConfig(
            poll_interval=3600,
            max_items_per_batch=1000,
            model_filter="m",
            operation_filter="o",
            client_reference_filters={"$a.b": "5", "": "x"},
        ),
    ),
    make_running_worker(),
    make_run(
        status=RunStatus.PAUSED,
        request_data={"$a.b": 2**60},
        current_job_id="e" * 24,
        failure_reason="r",
        model_runs=(
            ModelRun(
                model="m",
                iterations=(
                    Iteration(number=0, job_id="j", working_prompt_id="p", status="PROCESSED", eval_result={"$": None}),
                ),
            ),
        ),
        spent={"work": Totals(calls=1, input_cost=Decimal("0.1"), currencies=frozenset({"USD"}))},
        withdrawal=Withdrawal.ALL,
        discarded=True,
        lease=Lease("replica", NOW),
    ),
    make_evaluator(
        description="d",
        metrics=(
            Metric(
                kind=MetricKind.REGEX, name="$r", weight=0, hard=True, threshold=0.5, parameters={"pattern": "\x00"}
            ),
        ),
    ),
    make_dataset(version=3, count=300, size=7, starts=(0, 200)),
    DatasetPart(
        id="d-0",
        dataset_id="d",
        items=(
            DatasetItem(id="a", input={"$x.y": [None, 1.5]}, expected="e", tags=("t",), weight=2.0),
            DatasetItem(id="b", input="\0"),
        ),
        metadata=metadata(),
    ),
]


def store_of(storage: Storage, record: Any) -> Any:
    names = {"Client": "clients", "Model": "models", "Prompt": "prompts", "PromptFlow": "prompt_flows", "Run": "runs"}
    names |= {"Dataset": "datasets", "DatasetPart": "dataset_parts", "Evaluator": "evaluators"}
    return getattr(storage, names.get(type(record).__name__, "workers"))


@pytest.mark.parametrize("record", FULL, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_as_it_went_in(storage: Storage, record: Any) -> None:
    """Every field of every kind of record is stored and given back."""
    store = store_of(storage, record)
    store.add(record)
    assert store.get(record.id) == record
    assert store.find(Where(), ALL) == [record]


def test_get_many(storage: Storage, kind: str) -> None:
    """Those that exist, by id."""
    store, records = getattr(storage, kind), several(kind, 3)
    for record in records:
        store.add(record)
    wanted = [records[2].id, "unknown", "\x00", "", records[0].id, records[0].id]
    assert store.get_many(wanted) == {record.id: record for record in (records[0], records[2])}
    assert store.get_many([]) == {}
    assert store.get("unknown") is None


def test_insertion_order(storage: Storage, kind: str) -> None:
    """Lists and their pages are in insertion order, whatever the ids are like; edits do not move a record."""
    store, records = getattr(storage, kind), several(kind, 5)
    for record in records:
        store.add(record)
    changed = replace(records[0], name="edited")
    assert store.compare_and_set(changed) is True
    names = ["edited", "name-1", "name-2", "name-3", "name-4"]
    assert [record.name for record in store.find(Where(), ALL)] == names
    assert [record.name for record in store.find(Where(), Page(limit=2, skip=1))] == names[1:3]
    newest = store.find(Where(), Page(limit=2, skip=1, newest_first=True))
    assert [record.name for record in newest] == ["name-3", "name-2"]
    assert store.count(Where()) == 5


def test_compare_and_set(storage: Storage, kind: str) -> None:
    """An edit of the current revision is written and raises it by one; a stale one, and one of nothing, is refused."""
    store, record = getattr(storage, kind), KINDS[kind]()
    assert store.compare_and_set(record) is False
    store.add(record)
    assert store.compare_and_set(replace(record, name="first")) is True
    assert store.compare_and_set(replace(record, name="second")) is False
    assert store.get(record.id) == replace(record, name="first", revision=record.revision + 1)


def test_deleting(storage: Storage, kind: str) -> None:
    """A record written back as deleted vanishes from every method, and cannot be changed any more."""
    store, record = getattr(storage, kind), KINDS[kind]()
    store.add(record)
    assert store.compare_and_set(gone(record)) is True
    assert store.get(record.id) is None
    assert store.get_many([record.id]) == {}
    assert store.find(Where(), ALL) == []
    assert store.count(Where()) == 0
    assert store.compare_and_set(replace(record, revision=record.revision + 1)) is False
    assert store.compare_and_set(replace(gone(record), revision=record.revision + 1)) is False


def test_reopening(database: Database, kind: str) -> None:
    """What one connection has stored, another finds."""
    first, second = database.open(), database.open()
    record = KINDS[kind]()
    getattr(first, kind).add(record)
    assert getattr(second, kind).get(record.id) == record


TAKEN = [
    ("prompts", make_prompt(), make_prompt()),
    ("prompts", make_prompt(client_id=None), make_prompt(client_id=None)),
    ("prompts", make_prompt(version="1"), make_prompt(version="1")),
    ("workers", make_worker(name="same"), make_worker(name="same")),
    ("datasets", make_dataset(), make_dataset()),
    ("evaluators", make_evaluator(), make_evaluator()),
]
FREE = [
    ("prompts", make_prompt(), make_prompt(version="1")),
    ("prompts", make_prompt(), make_prompt(version=2)),
    ("prompts", make_prompt(), make_prompt(client_id=None)),
    ("prompts", make_prompt(), make_prompt(client_id=OTHER_CLIENT)),
    ("prompts", make_prompt(), make_prompt(type="USER")),
    ("prompts", make_prompt(), make_prompt(name="other")),
    ("workers", make_worker(name="same"), make_worker(name="same", client_id=OTHER_CLIENT)),
    ("datasets", make_dataset(), make_dataset(version=2)),
    ("datasets", make_dataset(), make_dataset(client_id=OTHER_CLIENT)),
    ("models", make_model(), make_model()),
    ("prompt_flows", make_flow(), make_flow()),
    ("clients", make_client(), make_client()),
]


@pytest.mark.parametrize(("kind", "first", "second"), TAKEN)
def test_a_taken_key(storage: Storage, kind: str, first: Any, second: Any) -> None:
    """A unique key that is taken among the live is refused, to a new record and to an edited one."""
    store = getattr(storage, kind)
    store.add(first)
    with pytest.raises(Duplicate):
        store.add(second)
    other = replace(second, name="free")
    store.add(other)
    with pytest.raises(Duplicate):
        store.compare_and_set(replace(other, name=first.name))
    assert store.find(Where(), ALL) == [first, other]


@pytest.mark.parametrize(("kind", "first", "second"), TAKEN)
def test_a_deleted_record_frees_its_key(storage: Storage, kind: str, first: Any, second: Any) -> None:
    """After a deletion the key is free, also for a record that is deleted in its turn."""
    store = getattr(storage, kind)
    store.add(first)
    assert store.compare_and_set(gone(first)) is True
    store.add(second)
    assert store.compare_and_set(gone(second)) is True
    assert store.find(Where(), ALL) == []


@pytest.mark.parametrize(("kind", "first", "second"), FREE)
def test_keys_that_differ(storage: Storage, kind: str, first: Any, second: Any) -> None:
    """Records whose unique keys differ live side by side."""
    store = getattr(storage, kind)
    store.add(first)
    store.add(second)
    assert store.find(Where(), ALL) == [first, second]


def test_adding_an_id_twice(storage: Storage, kind: str) -> None:
    """An id is taken once and for all."""
    store, record = getattr(storage, kind), KINDS[kind]()
    store.add(record)
    with pytest.raises(Duplicate):
        store.add(replace(record, name="other"))
    assert store.get(record.id) == record


WHERE: list[tuple[dict[str, list[Any]], list[int]]] = [
    ({"name": ["a"]}, [0, 1, 2]),
    ({"name": ["a", "b"]}, [0, 1, 2, 3]),
    ({"name": []}, []),
    ({"version": [2]}, [1]),
    ({"version": ["2"]}, [2]),
    ({"version": [2, "2"]}, [1, 2]),
    ({"clientId": [None]}, [3]),
    ({"clientId": [CLIENT, None], "name": ["b", "c"]}, [3]),
    ({"isPublic": [True]}, [3]),
    ({"isPublic": [False], "clientId": [CLIENT]}, [0, 1, 2]),
    ({"status": ["DRAFT"]}, []),
    ({"clientId": ["' OR 1=1"]}, []),
]


def test_where(storage: Storage) -> None:
    """Each field must have one of its values, by value and type; all conditions hold together."""
    prompts = [
        make_prompt(name="a", version=1),
        make_prompt(name="a", version=2),
        make_prompt(name="a", version="2"),
        make_prompt(name="b", client_id=None),
        make_prompt(name="c", client_id=OTHER_CLIENT),
    ]
    for prompt in prompts:
        storage.prompts.add(prompt)
    for equals, expected in WHERE:
        where = Where(equals=equals)
        assert storage.prompts.find(where, ALL) == [prompts[place] for place in expected], where
        assert storage.prompts.count(where) == len(expected), where
    visible = Where(visible_to=CLIENT)
    assert storage.prompts.find(visible, ALL) == prompts[:4]
    assert storage.prompts.count(Where(visible_to=CLIENT, equals={"name": ["b", "c"]})) == 1
    assert storage.prompts.find(visible, Page(limit=1, skip=1, newest_first=True)) == [prompts[2]]


def test_highest_version(storage: Storage) -> None:
    """The highest integer among the live prompts of one name, type and scope; texts do not count."""
    highest = storage.prompts.highest_version
    assert highest("summary", "SYSTEM", CLIENT) == 0
    for version in (1, 12, 3, "99"):
        storage.prompts.add(make_prompt(version=version))
    storage.prompts.add(make_prompt(version=40, client_id=None))
    storage.prompts.add(make_prompt(version=50, client_id=OTHER_CLIENT))
    storage.prompts.add(make_prompt(version=60, type="USER"))
    storage.prompts.add(make_prompt(version=70, name="other"))
    assert highest("summary", "SYSTEM", CLIENT) == 12
    assert highest("summary", "SYSTEM", None) == 40
    [twelve] = storage.prompts.find(Where(equals={"version": [12]}), ALL)
    storage.prompts.compare_and_set(gone(twelve))
    assert highest("summary", "SYSTEM", CLIENT) == 3
    assert highest("nothing", "SYSTEM", CLIENT) == 0


def test_running_workers(storage: Storage) -> None:
    """All workers that shall run, whoever runs them; not the stopped, the failed and the deleted."""
    mine, theirs, nobodys = make_running_worker("a"), make_running_worker("b"), make_running_worker(lease=None)
    dead = make_running_worker("a")
    for worker in (mine, make_worker(), make_worker(status=WorkerStatus.ERROR), theirs, nobodys, dead):
        storage.workers.add(worker)
    storage.workers.compare_and_set(gone(dead))
    assert storage.workers.running() == [mine, theirs, nobodys]


def test_renew(storage: Storage) -> None:
    """The leases of one owner's running workers move; others' and those of stopped ones stay."""
    mine, second, theirs = make_running_worker("a"), make_running_worker("a"), make_running_worker("b")
    stopped = make_worker(lease=WorkerLease("a", NOW))
    for worker in (mine, second, theirs, stopped):
        storage.workers.add(worker)
    until = NOW + 5 * MINUTE + timedelta(milliseconds=1)
    assert storage.workers.renew("a", until) == 2
    assert storage.workers.renew("nobody", until) == 0
    leases = [worker.lease for worker in storage.workers.find(Where(), ALL)]
    assert leases == [WorkerLease("a", until), WorkerLease("a", until), theirs.lease, stopped.lease]


def test_renewing_spoils_a_stale_edit(storage: Storage) -> None:
    """An edit made from what was there before a renewal cannot bring the old expiry back."""
    worker = make_running_worker("a")
    storage.workers.add(worker)
    storage.workers.renew("a", NOW + 5 * MINUTE)
    assert storage.workers.compare_and_set(replace(worker, group="g")) is False


def test_ping_and_time(storage: Storage) -> None:
    """An open storage answers a ping; its clock, where it has one, is aware UTC."""
    storage.ping()
    now = storage.server_time()
    assert now is None or now.utcoffset() == timedelta(0)
