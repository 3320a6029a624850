"""Tables and indexes, and how a file made by an earlier version is brought up to date.

Instants are whole milliseconds since 1970, money is text because its sums may exceed 63 bits. A job's `body` is what
was asked for, `progress` what has happened to it (NULL until something has), `totals` the sums of its calls (NULL
until there is one). Every index says which queries it serves.
"""

import sqlite3
from collections.abc import Callable
from typing import Any

from engine.errors import StorageError
from engine.storage.batch_codec import BATCHES, FILES
from engine.storage.dataset_codec import DATASET_PARTS, DATASETS, EVALUATORS
from engine.storage.evaluations_codec import EVALUATION_PARTS, EVALUATIONS
from engine.storage.record_codec import CLIENTS, MODELS, PROMPT_FLOWS, PROMPTS, WORKERS, Kind
from engine.storage.run_codec import RUNS
from engine.storage.search_codec import RUN_PARTS
from engine.storage.sqlite import contents, streams
from engine.storage.sqlite.faults import translated
from engine.storage.sqlite.usage import UsageDeltas, calls_of

_JOBS = (
    """CREATE TABLE jobs (
        id TEXT PRIMARY KEY NOT NULL,
        client_id TEXT NOT NULL,
        status TEXT NOT NULL,
        line TEXT NOT NULL,
        operation TEXT NOT NULL,
        model TEXT NOT NULL,
        priority INTEGER NOT NULL,
        client_job_id TEXT,
        due_at INTEGER,
        token INTEGER NOT NULL,
        lease_owner TEXT,
        lease_until INTEGER,
        updated_at INTEGER,
        updated_by TEXT,
        revision INTEGER NOT NULL,
        texts INTEGER NOT NULL,
        deleted INTEGER NOT NULL,
        totals TEXT,
        progress TEXT,
        body TEXT NOT NULL
    )""",
    # claim, ahead_of
    "CREATE INDEX jobs_ready ON jobs (client_id, priority, id) WHERE line = 'ready'",
    "CREATE INDEX jobs_ready_operation ON jobs (client_id, operation, priority, id) WHERE line = 'ready'",
    "CREATE INDEX jobs_ready_model ON jobs (client_id, model, priority, id, operation) WHERE line = 'ready'",
    # promote, expired, next_due
    "CREATE INDEX jobs_later ON jobs (due_at) WHERE line = 'later'",
    "CREATE INDEX jobs_leased ON jobs (lease_until) WHERE line = 'leased'",
    # find and count
    "CREATE INDEX jobs_of_client ON jobs (client_id, id) WHERE deleted = 0",
    "CREATE INDEX jobs_of_client_in_status ON jobs (client_id, status, id) WHERE deleted = 0",
    "CREATE INDEX jobs_in_status ON jobs (status, id) WHERE deleted = 0",
    "CREATE INDEX jobs_by_clients_id ON jobs (client_job_id, id) WHERE deleted = 0 AND client_job_id IS NOT NULL",
    # one row for each `path=value` text of a live job; `ready` and `priority` repeat the job's, for claims
    """CREATE TABLE job_references (
        id TEXT NOT NULL,
        text TEXT NOT NULL,
        client_id TEXT NOT NULL,
        priority INTEGER NOT NULL,
        ready INTEGER NOT NULL,
        PRIMARY KEY (id, text)
    ) WITHOUT ROWID""",
    "CREATE INDEX job_references_of_client ON job_references (text, client_id, id)",
    "CREATE INDEX job_references_ready ON job_references (text, client_id, priority, id) WHERE ready = 1",
    # summary, count, waiting_clients: sums over the live jobs that share the key
    """CREATE TABLE job_counters (
        client_id TEXT NOT NULL,
        status TEXT NOT NULL,
        line TEXT NOT NULL,
        operation TEXT NOT NULL,
        model TEXT NOT NULL,
        currencies TEXT NOT NULL,
        jobs INTEGER NOT NULL,
        measured INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        nanoseconds INTEGER NOT NULL,
        input_units TEXT NOT NULL,
        output_units TEXT NOT NULL,
        PRIMARY KEY (client_id, status, line, operation, model, currencies)
    ) WITHOUT ROWID""",
    "CREATE INDEX job_counters_ready ON job_counters (client_id, operation, model) WHERE line = 'ready'",
    """CREATE TABLE idempotency (
        client_id TEXT NOT NULL,
        key TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        first_id TEXT NOT NULL,
        jobs INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        PRIMARY KEY (client_id, key)
    ) WITHOUT ROWID""",
    "CREATE INDEX idempotency_expiry ON idempotency (expires_at)",
)


def table_of(kind: Kind[Any]) -> str:
    return kind.collection.replace("-", "_")


def _record_table(kind: Kind[Any]) -> list[str]:
    """Columns for what is queried; they have no type, so that 3 and "3" stay distinct. `seq` is insertion order."""
    table = table_of(kind)
    columns = "".join(f'"{name}", ' for name in kind.indexed)
    created = (
        f"CREATE TABLE {table} (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, unique_key TEXT NOT NULL UNIQUE, "
        f"revision INTEGER NOT NULL, deleted INTEGER NOT NULL, {columns}body TEXT NOT NULL)"
    )
    indexes = [
        f'CREATE INDEX {table}_by_{name.lower()} ON {table} ("{name}", seq) WHERE deleted = 0' for name in kind.indexed
    ]
    return [created, f"CREATE INDEX {table}_live ON {table} (seq) WHERE deleted = 0", *indexes]


def _first_version(connection: sqlite3.Connection) -> None:
    kinds: tuple[Kind[Any], ...] = (CLIENTS, MODELS, PROMPTS, PROMPT_FLOWS, WORKERS)
    for statement in (*_JOBS, *(text for kind in kinds for text in _record_table(kind))):
        connection.execute(statement)


def _second_version(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE shared (key TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL, written_at INTEGER NOT NULL)"
    )
    # forget_idle
    connection.execute("CREATE INDEX shared_by_age ON shared (written_at)")


_USAGE = (
    # sums over the calls on all ledgers, deleted jobs' too, that share the key
    """CREATE TABLE usage (
        client_id TEXT NOT NULL,
        day TEXT NOT NULL,
        model TEXT NOT NULL,
        operation TEXT NOT NULL,
        currency TEXT NOT NULL,
        calls INTEGER NOT NULL,
        errors INTEGER NOT NULL,
        unknown INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cached_input_tokens INTEGER NOT NULL,
        reasoning_tokens INTEGER NOT NULL,
        input_units TEXT NOT NULL,
        output_units TEXT NOT NULL,
        PRIMARY KEY (client_id, day, model, operation, currency)
    ) WITHOUT ROWID""",
    # rows of all clients
    "CREATE INDEX usage_by_day ON usage (day)",
)


def _third_version(connection: sqlite3.Connection) -> None:
    """The sums, with what the jobs of an earlier version have called."""
    for statement in _USAGE:
        connection.execute(statement)
    deltas = UsageDeltas()
    for client_id, operation, progress in connection.execute(
        "SELECT client_id, operation, progress FROM jobs WHERE totals IS NOT NULL"
    ):
        deltas.add(client_id, operation, calls_of(progress))
    deltas.write(connection)


def _tables_of(*kinds: Kind[Any]) -> Callable[[sqlite3.Connection], None]:
    """A step that adds kinds of records."""

    def step(connection: sqlite3.Connection) -> None:
        for statement in (text for kind in kinds for text in _record_table(kind)):
            connection.execute(statement)

    return step


def _flows_with_canaries(connection: sqlite3.Connection) -> None:
    """A column that files of before lack: a new one's table has it from the start."""
    table = table_of(PROMPT_FLOWS)
    if any(name == "canaryOpen" for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")):
        return
    connection.execute(f'ALTER TABLE {table} ADD COLUMN "canaryOpen"')
    connection.execute(f'CREATE INDEX {table}_by_canaryopen ON {table} ("canaryOpen", seq) WHERE deleted = 0')


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    _first_version,
    _second_version,
    _third_version,
    streams.make_table,
    _tables_of(RUNS),
    _tables_of(FILES, BATCHES),
    contents.make_table,
    _tables_of(RUN_PARTS),
    _tables_of(DATASETS, DATASET_PARTS),
    _tables_of(EVALUATORS, EVALUATIONS, EVALUATION_PARTS),
    _flows_with_canaries,
)
"""Step n brings a file of `user_version` n to n + 1. A step that has been released never changes."""


def migrate(
    connection: sqlite3.Connection, steps: tuple[Callable[[sqlite3.Connection], None], ...] = MIGRATIONS
) -> None:
    """Run the steps that the file lacks, all or none; raises StorageError for a file of a newer Metasync."""
    with translated():
        connection.execute("BEGIN IMMEDIATE")
        try:
            _step_up(connection, steps)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def _step_up(connection: sqlite3.Connection, steps: tuple[Callable[[sqlite3.Connection], None], ...]) -> None:
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if version > len(steps):
        raise StorageError(f"the database file was made by a newer Metasync (schema {version}, known {len(steps)})")
    for step in steps[version:]:
        step(connection)
    if version < len(steps):
        connection.execute(f"PRAGMA user_version = {len(steps)}")
