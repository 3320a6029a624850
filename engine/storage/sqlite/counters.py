"""Counts and sums of live jobs, kept in the same transaction as the jobs, so that a summary costs no scan.

Sums are exact: whole tokens, whole nanoseconds, money in whole QUANTUM units added up as Python integers of any size.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from engine.jobs.queue import ClaimFilter, JobQuery, SummaryRow
from engine.jobs.states import JobState
from engine.pricing import from_units
from engine.storage.sqlite.conditions import Conditions

_NANO = 1_000_000_000
_NONE = (0, 0, 0, 0, 0, 0)
_KEY = "client_id, status, line, operation, model, currencies"
_AT_KEY = "client_id = ? AND status = ? AND line = ? AND operation = ? AND model = ? AND currencies = ?"
_SUMS = "jobs, measured, input_tokens, output_tokens, nanoseconds, input_units, output_units"

_READ = f"SELECT {_SUMS} FROM job_counters WHERE {_AT_KEY}"
_WRITE = f"INSERT OR REPLACE INTO job_counters ({_KEY}, {_SUMS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_DROP = f"DELETE FROM job_counters WHERE {_AT_KEY}"


class Place(NamedTuple):
    """Where a live job is counted."""

    client_id: str
    status: str
    line: str
    operation: str
    model: str


_Key = tuple[str, str, str, str, str, str]
_Sums = tuple[int, ...]


class Deltas:
    """What one transaction changes, gathered so that each counter is written once."""

    def __init__(self) -> None:
        self._sums: dict[_Key, list[int]] = {}

    def enter(self, place: Place, totals: str | None) -> None:
        """A job with these stored totals is now at `place`."""
        self._add(place, totals, 1)

    def leave(self, place: Place, totals: str | None) -> None:
        """A job with these stored totals is no longer at `place`."""
        self._add(place, totals, -1)

    def _add(self, place: Place, totals: str | None, sign: int) -> None:
        currencies, sums = ("[]", _NONE) if totals is None else parse_totals(totals)
        entry = self._sums.setdefault((*place, currencies), [0] * 7)
        entry[0] += sign
        if sums is not _NONE:
            for position, amount in enumerate(sums, 1):
                entry[position] += sign * amount

    def merge(self, other: "Deltas") -> None:
        for key, sums in other._sums.items():
            entry = self._sums.setdefault(key, [0] * 7)
            entry[:] = [first + second for first, second in zip(entry, sums, strict=True)]

    def write(self, connection: sqlite3.Connection) -> None:
        """Bring the counters up to date; one that counts no job any more goes."""
        for key, change in self._sums.items():
            if not any(change):
                continue
            row = connection.execute(_READ, key).fetchone()
            sums = change if row is None else [int(old) + new for old, new in zip(row, change, strict=True)]
            if sums[0] == 0:
                connection.execute(_DROP, key)
            else:
                connection.execute(_WRITE, (*key, *sums[:5], str(sums[5]), str(sums[6])))


def parse_totals(totals: str) -> tuple[str, _Sums]:
    """Stored totals as currencies (JSON text) and the six sums of a counter behind its count."""
    values = orjson.loads(totals)
    sums = (
        int(values["calls"] > 0),
        values["inputTokens"],
        values["outputTokens"],
        round(values["duration"] * _NANO),
        values["inputCost"],
        values["outputCost"],
    )
    return orjson.dumps(values["currencies"]).decode(), sums


def serves(query: JobQuery) -> bool:
    """Whether the counters alone can answer for `query`."""
    return query.client_job_id is None and query.priority is None and not query.references


def _matching(query: JobQuery) -> Conditions:
    status = None if query.status is None else str(query.status)
    return Conditions(client_id=query.client_id, status=status, operation=query.operation, model=query.model)


def count(connection: sqlite3.Connection, query: JobQuery) -> int:
    where = _matching(query)
    [total] = connection.execute(f"SELECT COALESCE(SUM(jobs), 0) FROM job_counters{where}", where.values).fetchone()
    return int(total)


def summary(connection: sqlite3.Connection, query: JobQuery) -> list[SummaryRow]:
    where = _matching(query)
    rows = connection.execute(f"SELECT status, currencies, {_SUMS} FROM job_counters{where}", where.values)
    return summed((status, currencies, tuple(int(value) for value in sums)) for status, currencies, *sums in rows)


def summed(rows: Iterable[tuple[str, str, Sequence[int]]]) -> list[SummaryRow]:
    """One row for each status and set of currencies, from any number of partial sums (a count and six more)."""
    groups: dict[tuple[str, str], list[int]] = {}
    for status, currencies, sums in rows:
        entry = groups.setdefault((status, currencies), [0] * 7)
        entry[:] = [first + second for first, second in zip(entry, sums, strict=True)]
    return [_row(status, currencies, sums) for (status, currencies), sums in sorted(groups.items())]


def _row(status: str, currencies: str, sums: Sequence[int]) -> SummaryRow:
    jobs, measured, input_tokens, output_tokens, nanoseconds, input_units, output_units = sums
    return SummaryRow(
        status=JobState(status),
        currencies=frozenset(orjson.loads(currencies)),
        count=jobs,
        measured=measured,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        duration=nanoseconds / _NANO,
        input_cost=from_units(input_units),
        output_cost=from_units(output_units),
    )


def _ready(wanted: ClaimFilter) -> Conditions:
    wanted_of = Conditions(client_id=wanted.client_id, operation=wanted.operation, model=wanted.model)
    return wanted_of.and_("line = 'ready'")


def any_ready(connection: sqlite3.Connection, wanted: ClaimFilter) -> bool:
    """Whether a ready job passes the filter, its references aside."""
    where = _ready(wanted)
    row: Any = connection.execute(f"SELECT 1 FROM job_counters{where} LIMIT 1", where.values).fetchone()
    return row is not None


def ready_models(connection: sqlite3.Connection, wanted: ClaimFilter) -> list[str]:
    """The models that ready jobs name, references aside."""
    where = _ready(wanted)
    rows = connection.execute(f"SELECT model FROM job_counters INDEXED BY job_counters_ready{where}", where.values)
    return list(dict.fromkeys(model for (model,) in rows))


def ready_clients(connection: sqlite3.Connection, wanted: ClaimFilter, after: str, limit: int) -> list[str]:
    where = _ready(wanted).and_("client_id > ?", after)
    rows = connection.execute(
        f"SELECT DISTINCT client_id FROM job_counters INDEXED BY job_counters_ready{where} ORDER BY client_id LIMIT ?",
        (*where.values, limit),
    )
    return [client_id for (client_id,) in rows]
