"""Every query of the MongoDB back-end goes through an index: the server's own plans say so."""

from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from engine.jobs.queue import ClaimFilter, ClaimRequest, JobQueue
from engine.records.store import PromptStore, RecordStore, WorkerStore
from engine.records.streams import StreamStore
from engine.shared import SharedDocuments
from engine.storage.mongo.connection import connect
from engine.storage.mongo.storage import MongoStorage
from engine.usage import UsageStore
from tests.support.backends import Servers
from tests.support.factories import CLIENT, IDS, NOW, OTHER_CLIENT, make_jobs
from tests.support.storage_tour import public_methods, tour

PLANNED = frozenset({"find", "aggregate", "update", "delete", "count", "distinct", "findAndModify"})
CONNECTION_FIELDS = frozenset(
    {"lsid", "$db", "$clusterTime", "txnNumber", "maxTimeMS", "$readPreference", "writeConcern", "ordered"}
)
SCAN, SORT = "COLLSCAN", "SORT"

OF_OPTIMIZER = ("datasets", "dataset-parts", "evaluators", "evaluations", "evaluation-parts", "run-parts")
JUSTIFIED = {
    ("find", "counters", SCAN): "an admin's summary or usage reads every bucket: one document per 4,000 jobs",
    ("aggregate", "jobs", SCAN): "an admin counts or sums up jobs of one priority: the port says that is not flat",
    ("aggregate", "clients", SCAN): "counts all live records of a kind, of which there are few",
    ("aggregate", "models", SCAN): "counts all live records of a kind, of which there are few",
    ("aggregate", "prompts", SCAN): "counts all live records of a kind, of which there are few",
    ("aggregate", "prompt-flows", SCAN): "counts all live records of a kind, of which there are few",
    ("aggregate", "workers", SCAN): "counts all live records of a kind, of which there are few",
    ("aggregate", "runs", SCAN): "counts all live records of a kind, of which there are few",
    **{("aggregate", kind, SCAN): "counts all live records of a kind, an admin's" for kind in OF_OPTIMIZER},
    ("aggregate", "streams", SCAN): "an admin counts or sums up all clients' streams",
}
PRIORITY_ONLY = [{"priority": 5, "_metadata.isDeleted": False}]


class Commands(CommandListener):
    """Keeps the commands that a planner answers."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name in PLANNED:
            self.seen.append(dict(event.command))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Of no interest."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Of no interest."""


@pytest.fixture
def observed(storage_servers: Servers) -> Iterator[tuple[MongoStorage, Commands, Any]]:
    """A storage with a thousand jobs, the commands it sends from now on, and a plain client's database."""
    commands = Commands()
    url, name = storage_servers.url("mongo"), f"metasync-test-plans-{IDS.new()}"
    storage = MongoStorage(connect(url, cosmos=False, listeners=[commands]), name, cosmos=False)
    for _ in range(5):
        storage.jobs.insert(make_jobs(100, client_id=CLIENT, client_reference={"team": "red"}))
        storage.jobs.insert(make_jobs(100, client_id=OTHER_CLIENT, operation="translate"))
    commands.seen.clear()
    with MongoClient[dict[str, Any]](url, datetime_conversion="DATETIME_AUTO") as plain:
        try:
            yield storage, commands, plain[name]
        finally:
            storage.close()
            plain.drop_database(name)


def explainable(command: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The command without what belongs to the connection; each statement of a write by itself."""
    plain = {key: value for key, value in command.items() if key not in CONNECTION_FIELDS}
    for field in ("updates", "deletes"):
        if field in plain:
            yield from ({**plain, field: [statement]} for statement in plain[field])
            return
    yield plain


def stages(plan: Any) -> set[str]:
    """The names of all stages of an explain's winning plan."""
    if isinstance(plan, list):
        return set().union(*map(stages, plan)) if plan else set()
    if not isinstance(plan, dict):
        return set()
    own = {plan["stage"]} if isinstance(plan.get("stage"), str) else set()
    return own | stages([value for key, value in plan.items() if key != "rejectedPlans"])


def unindexed(database: Any, commands: list[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """Commands whose plan reads a whole collection or sorts in memory, by kind, collection and stage."""
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for command in commands:
        kind = next(iter(command))
        for part in explainable(command):
            plan = database.command("explain", part, verbosity="queryPlanner", codec_options=database.codec_options)
            for stage in stages(plan) & {SCAN, SORT}:
                found.setdefault((kind, command[kind], stage), []).append(part)
    return found


def test_every_query_goes_through_an_index(observed: tuple[MongoStorage, Commands, Any]) -> None:
    """A run of every operation reads no collection whole and sorts nothing in memory, but for what is listed."""
    storage, commands, database = observed
    called = tour(storage)
    assert called["jobs"] == public_methods(JobQueue)
    assert called["records"] == public_methods(RecordStore)
    assert called["prompts"] == public_methods(PromptStore)
    assert called["workers"] == public_methods(WorkerStore)
    assert called["shared"] == public_methods(SharedDocuments)
    assert called["usage"] == public_methods(UsageStore)
    assert called["streams"] == public_methods(StreamStore)

    found = unindexed(database, commands.seen)

    assert {key: parts for key, parts in found.items() if key not in JUSTIFIED} == {}
    scans_of_jobs = found.get(("aggregate", "jobs", SCAN), [])
    assert [part["pipeline"][0]["$match"] for part in scans_of_jobs] == PRIORITY_ONLY * len(scans_of_jobs)


@pytest.mark.parametrize(
    "wanted",
    [{}, {"operation": "translate"}, {"model": "gpt-test"}, {"references": ("team=red",)}],
    ids=["all", "operation", "model", "reference"],
)
def test_waiting_clients_are_found_by_seeking(
    observed: tuple[MongoStorage, Commands, Any], wanted: dict[str, Any]
) -> None:
    """Naming the waiting clients costs a step or two in the index for each client, not one for each job."""
    storage, commands, database = observed
    storage.jobs.waiting_clients(ClaimFilter(**wanted), None, 10)
    assert examined(database, commands.seen[-1], "totalKeysExamined") <= 6


@pytest.mark.parametrize(
    "wanted",
    [{"operation": "none"}, {"model": "none"}, {"references": ("team=none",)}, {"references": ("team=red", "no=1")}],
    ids=["operation", "model", "reference", "second reference"],
)
def test_a_claim_that_finds_nothing_reads_nothing(
    observed: tuple[MongoStorage, Commands, Any], wanted: dict[str, Any]
) -> None:
    """A filter that no job passes does not make a poll walk through the backlog."""
    storage, commands, database = observed
    request = ClaimRequest(filter=ClaimFilter(client_id=CLIENT, **wanted), owner="o", expires_at=NOW, limit=10)
    assert storage.jobs.claim(request, NOW) == []
    assert examined(database, commands.seen[-1], "totalDocsExamined") == 0


def test_a_claim_reads_what_it_takes(observed: tuple[MongoStorage, Commands, Any]) -> None:
    """Finding ten jobs among hundreds looks at ten documents."""
    storage, commands, database = observed
    request = ClaimRequest(filter=ClaimFilter(client_id=CLIENT), owner="o", expires_at=NOW, limit=10)
    assert len(storage.jobs.claim(request, NOW)) == 10
    finds = [command for command in commands.seen if "find" in command and command["filter"].get("line") == "ready"]
    assert examined(database, finds[-1], "totalDocsExamined") == 10


def examined(database: Any, command: dict[str, Any], what: str) -> int:
    """How many index keys or documents the command reads."""
    [part] = explainable(command)
    statistics = database.command("explain", part, verbosity="executionStats")["executionStats"]
    return int(statistics[what])
