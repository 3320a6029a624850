"""Jobs by query: each shape of query goes by the index made for it, in the order it gives."""

import sqlite3
from collections.abc import Iterator
from typing import Any

from engine.jobs.queue import JobQuery, Page, SummaryRow
from engine.storage.sqlite.conditions import Conditions
from engine.storage.sqlite.counters import parse_totals, summed
from engine.storage.sqlite.rows import COLUMNS

_COLUMNS_OF_JOB = ", ".join(f"j.{name}" for name in COLUMNS.split(", "))


def find(connection: sqlite3.Connection, query: JobQuery, page: Page) -> list[Any]:
    """Rows in the order of COLUMNS."""
    source, where, order = _select(query)
    direction = "DESC" if page.newest_first else "ASC"
    statement = f"SELECT {_COLUMNS_OF_JOB} FROM {source}{where} ORDER BY {order} {direction} LIMIT ? OFFSET ?"
    return connection.execute(statement, (*where.values, page.limit, page.skip)).fetchall()


def count(connection: sqlite3.Connection, query: JobQuery) -> int:
    source, where, _ = _select(query)
    [total] = connection.execute(f"SELECT COUNT(*) FROM {source}{where}", where.values).fetchone()
    return int(total)


def summary(connection: sqlite3.Connection, query: JobQuery) -> list[SummaryRow]:
    source, where, _ = _select(query)
    rows = connection.execute(f"SELECT j.status, j.totals FROM {source}{where}", where.values)
    return summed(_counted(rows))


def _counted(rows: Iterator[tuple[str, str | None]]) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    for status, totals in rows:
        currencies, sums = ("[]", (0,) * 6) if totals is None else parse_totals(totals)
        yield status, currencies, (1, *sums)


def _select(query: JobQuery) -> tuple[str, Conditions, str]:
    """FROM, WHERE and the column that gives insertion order."""
    where = Conditions(
        **{
            "j.client_id": query.client_id,
            "j.status": None if query.status is None else str(query.status),
            "j.operation": query.operation,
            "j.model": query.model,
            "j.priority": query.priority,
            "j.client_job_id": query.client_job_id,
        }
    ).and_("j.deleted = 0")
    if not query.references:
        return f"jobs j INDEXED BY {_index(query)}", where, "j.id"
    first, *others = query.references
    where.and_("r.text = ?", first)
    if query.client_id is not None:
        where.and_("r.client_id = ?", query.client_id)
    for text in others:
        where.and_("EXISTS (SELECT 1 FROM job_references o WHERE o.id = r.id AND o.text = ?)", text)
    return "job_references r INDEXED BY job_references_of_client CROSS JOIN jobs j ON j.id = r.id", where, "r.id"


def _index(query: JobQuery) -> str:
    if query.client_job_id is not None:
        return "jobs_by_clients_id"
    if query.client_id is not None:
        return "jobs_of_client" if query.status is None else "jobs_of_client_in_status"
    return "sqlite_autoindex_jobs_1" if query.status is None else "jobs_in_status"
