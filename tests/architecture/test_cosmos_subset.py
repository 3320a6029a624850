"""The MongoDB back-end uses nothing that Azure Cosmos DB for MongoDB (request units) lacks.

Source of the allowed sets: Microsoft's page "Azure Cosmos DB for MongoDB (4.2 server version): supported features and
syntax", sections on commands, aggregation stages and expressions, query and update operators and indexes, with
"Manage indexing in Azure Cosmos DB's API for MongoDB" for compound and unique indexes. They hold only what this
back-end needs; a new need is looked up there before it is added here. Nothing here was run on Cosmos DB itself.
"""

from collections.abc import Mapping
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from engine.jobs.queue import JobQueue
from engine.records.store import PromptStore, RecordStore, Storage, WorkerStore
from engine.records.streams import StreamStore
from engine.shared import SharedDocuments
from engine.storage.mongo.connection import connect, is_cosmos
from engine.storage.mongo.storage import MongoStorage
from engine.usage import UsageStore
from tests.support.backends import Servers
from tests.support.factories import IDS
from tests.support.storage_tour import public_methods, tour

COMMANDS = frozenset(
    {"find", "aggregate", "distinct", "insert", "update", "delete", "findAndModify", "createIndexes", "ping"}
    | {"isMaster", "ismaster", "getMore", "killCursors", "endSessions"}
)
STAGES = frozenset({"$match", "$group", "$limit", "$sort", "$unwind"})
EXPRESSIONS = frozenset({"$sum", "$min", "$max", "$cond", "$gt", "$eq", "$dateToString"})
QUERIES = frozenset({"$in", "$nin", "$ne", "$gt", "$gte", "$lt", "$lte", "$exists", "$all", "$or"})
UPDATES = frozenset({"$set", "$unset", "$inc", "$push", "$addToSet", "$each", "$currentDate", "$setOnInsert"})
INDEX_FIELDS = frozenset({"name", "key", "unique"})
FIELDS: Mapping[str, frozenset[str]] = {
    "find": frozenset({"find", "filter", "projection", "sort", "skip", "limit", "singleBatch"}),
    "aggregate": frozenset({"aggregate", "pipeline", "cursor"}),
    "distinct": frozenset({"distinct", "key", "query"}),
    "insert": frozenset({"insert", "ordered", "documents"}),
    "update": frozenset({"update", "ordered", "updates"}),
    "delete": frozenset({"delete", "ordered", "deletes"}),
    "findAndModify": frozenset({"findAndModify", "query", "new", "update", "upsert", "fields"}),
    "createIndexes": frozenset({"createIndexes", "indexes"}),
}
STATEMENT_FIELDS = frozenset({"q", "u", "multi", "upsert", "limit"})
ENVELOPE = frozenset({"lsid", "$db", "$clusterTime", "$readPreference", "writeConcern"})
"""No txnNumber (retryable writes, transactions) and no maxTimeMS among them."""

COMPOSITE_SORTS = frozenset(
    {
        ("jobs", ("line", "clientId", "priority", "_id")),
        ("jobs", ("line", "operation", "clientId", "priority", "_id")),
        ("jobs", ("line", "model", "clientId", "priority", "_id")),
        ("jobs", ("line", "wakeAt")),
        ("prompts", ("name", "type", "clientId", "version")),
        ("streams", ("createdAt", "_id")),
    }
)
ARRAYS = frozenset({"references", "ledger", "workingPrompts", "promptIds"})


class Commands(CommandListener):
    """Keeps all commands."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.seen.append(dict(event.command))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Of no interest."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Of no interest."""


@pytest.fixture
def toured(storage_servers: Servers) -> list[dict[str, Any]]:
    """All commands of a start and of a run of every operation, set up as for Cosmos DB."""
    commands = Commands()
    url, name = storage_servers.url("mongo"), f"metasync-test-cosmos-{IDS.new()}"
    storage: Storage = MongoStorage(connect(url, cosmos=True, listeners=[commands]), name, cosmos=True)
    try:
        called = tour(storage)
        assert called["jobs"] == public_methods(JobQueue)
        assert called["records"] == public_methods(RecordStore)
        assert called["prompts"] == public_methods(PromptStore)
        assert called["workers"] == public_methods(WorkerStore)
        assert called["shared"] == public_methods(SharedDocuments)
        assert called["usage"] == public_methods(UsageStore)
        assert called["streams"] == public_methods(StreamStore)
    finally:
        storage.close()
        with MongoClient[dict[str, Any]](url) as client:
            client.drop_database(name)
    return commands.seen


def of_kind(commands: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    return [command for command in commands if next(iter(command)) in kinds]


def statements(commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All statements of updates and deletes."""
    writes = of_kind(commands, "update", "delete")
    return [statement for command in writes for statement in command.get("updates", command.get("deletes"))]


def filters(commands: list[dict[str, Any]]) -> list[Any]:
    found = [command.get("filter", command.get("query")) for command in of_kind(commands, "find", "distinct")]
    found += [command["query"] for command in of_kind(commands, "findAndModify")]
    found += [statement["q"] for statement in statements(commands)]
    return found + [stage["$match"] for stage in pipeline_stages(commands) if "$match" in stage]


def changes(commands: list[dict[str, Any]]) -> list[Any]:
    return [command["update"] for command in of_kind(commands, "findAndModify")] + [
        statement["u"] for statement in statements(commands) if "u" in statement
    ]


def pipeline_stages(commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [stage for command in of_kind(commands, "aggregate") for stage in command["pipeline"]]


def operators(value: Any) -> set[str]:
    """All names that start with a dollar sign."""
    if isinstance(value, Mapping):
        return {name for name in value if name.startswith("$")} | operators(list(value.values()))
    return set().union(*map(operators, value)) if isinstance(value, list) and value else set()


def test_every_command_and_field_is_known_there(toured: list[dict[str, Any]]) -> None:
    """Only listed commands go out, with listed fields: no transaction, no retryable write, no hint, no time limit."""
    assert {next(iter(command)) for command in toured} <= COMMANDS
    for command in toured:
        kind = next(iter(command))
        if kind in FIELDS:
            assert set(command) - ENVELOPE <= FIELDS[kind], kind
    assert {field for statement in statements(toured) for field in statement} <= STATEMENT_FIELDS


def test_every_operator_is_known_there(toured: list[dict[str, Any]]) -> None:
    """Queries, updates and aggregations are made of listed operators and stages alone; no update is a pipeline."""
    assert operators(filters(toured)) <= QUERIES
    assert operators(changes(toured)) <= UPDATES
    assert all(isinstance(change, Mapping) for change in changes(toured))
    assert {name for stage in pipeline_stages(toured) for name in stage} <= STAGES
    assert operators([stage["$group"] for stage in pipeline_stages(toured) if "$group" in stage]) <= EXPRESSIONS


def test_every_index_can_be_made_there(toured: list[dict[str, Any]]) -> None:
    """Indexes are plain or unique: none partial, sparse, expiring or descending, none compound over arrays or parts."""
    made = [index for command in of_kind(toured, "createIndexes") for index in command["indexes"]]
    assert made
    for index in made:
        assert set(index) <= INDEX_FIELDS
        assert set(index["key"].values()) == {1}
        if len(index["key"]) > 1:
            assert not [field for field in index["key"] if "." in field or field in ARRAYS]


def test_unique_indexes_are_made_before_the_first_write(toured: list[dict[str, Any]]) -> None:
    """Cosmos DB makes unique indexes on empty collections only, so they all come first."""
    kinds = [next(iter(command)) for command in toured]
    last_index = max(place for place, kind in enumerate(kinds) if kind == "createIndexes")
    assert last_index < min(place for place, kind in enumerate(kinds) if kind in ("insert", "update", "findAndModify"))


def test_every_sort_over_several_fields_has_its_index(toured: list[dict[str, Any]]) -> None:
    """Cosmos DB sorts by several fields only through a compound index of exactly these fields in this order."""
    made = {
        (command["createIndexes"], tuple(index["key"]))
        for command in of_kind(toured, "createIndexes")
        for index in command["indexes"]
    }
    sorts = {
        (command["find"], tuple(command["sort"]))
        for command in of_kind(toured, "find")
        if len(command.get("sort", {})) > 1
    }
    assert sorts == COMPOSITE_SORTS
    assert sorts <= made


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mongodb://user:word@acc.mongo.cosmos.azure.com:10255/?ssl=true&replicaSet=globaldb", True),
        ("mongodb://user:word@localhost:10255/?ssl=true&appName=@acc@", True),
        ("mongodb://user:word@acc.documents.azure.com:10255/", True),
        ("mongodb+srv://user:word@cluster.example.net/?retryWrites=true", False),
        ("mongodb://cosmos.azure.com.example.net:27017/", False),
        ("mongodb://127.0.0.1:27017/?appName=metasync", False),
    ],
)
def test_cosmos_is_told_by_its_connection_string(url: str, expected: bool) -> None:
    """Azure's hosts and its application name mean Cosmos DB; nothing else does."""
    assert is_cosmos(url) is expected
