"""Jobs as MongoDB stores them: the codec's document, and what this back-end adds for itself.

    bucket     which counter bucket the job is counted in; never changes
    anchor     the last job of the batch it came with: the batch counts as inserted once that one is there
    wakeAt     when something is to be done about it: the not-before time while LATER, the lease's end while LEASED
    stamp      who wrote last: how a claim or an edit finds out what it has written

Fields that a partial index asks for are absent where they would be empty. Amounts of money are split in two integers,
so that neither a job's nor a bucket's sum outgrows what the server adds exactly.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from engine.jobs.job import Attempt, Job, Totals
from engine.storage.codec import (
    Line,
    attempt_to_document,
    job_from_document,
    job_to_document,
    line_of,
    totals_to_document,
)
from engine.storage.mongo.connection import Document

SPLIT = 10**9
"""A split amount is high * SPLIT + low. Sums of both stay exact even in a double, to a million jobs of 10,000 each."""
_MONEY = ("inputCost", "outputCost")
_OPTIONAL = ("id", "references", "wakeAt")

LIVE: Document = {"_metadata.isDeleted": False}


def possible(ids: Iterable[str]) -> list[str]:
    """Those that can be an id at all; the driver refuses texts that are not Unicode, such as half a surrogate pair."""
    return [each for each in ids if each.isascii()]


def stored_job(job: Job, now: datetime) -> Document:
    """The document to insert, without bucket and anchor."""
    document = job_to_document(job, now)
    document["ledger"] = [stored_attempt(attempt) for attempt in job.ledger]
    document["totals"] = stored_totals(job.totals)
    document["wakeAt"] = wake_at(job, line_of(job, now))
    for name in _OPTIONAL:
        if document[name] in (None, []):
            del document[name]
    return document


def replacement(job: Job, now: datetime, stamp: str) -> Document:
    """The update that makes the stored job equal `job`, one revision on. Bucket and anchor stay."""
    document = stored_job(job, now)
    del document["_id"]
    document |= {"revision": job.revision + 1, "stamp": stamp}
    absent = {name: "" for name in _OPTIONAL if name not in document}
    return {"$set": document, "$unset": absent} if absent else {"$set": document}


def wake_at(job: Job, line: Line) -> datetime | None:
    if line is Line.LATER:
        return job.due_at
    return job.lease.expires_at if line is Line.LEASED and job.lease is not None else None


def read_job(document: Document) -> Job:
    """Raises StorageCorrupt where the document cannot be read."""
    document.setdefault("id", None)
    totals = document.get("totals")
    if isinstance(totals, dict):
        document["totals"] = _joined(totals)
    for attempt in document.get("ledger", ()):
        join_calls(attempt)
    return job_from_document(document)


def join_calls(holder: Document) -> None:
    """Makes the amounts of its `calls` whole again."""
    for call in holder["calls"]:
        for name in _MONEY:
            if f"{name}High" in call:
                call[name] = joined(call[f"{name}High"], call[name])


def stored_attempt(attempt: Attempt) -> Document:
    document = attempt_to_document(attempt)
    split_calls(document)
    return document


def split_calls(holder: Document) -> None:
    """Splits amounts of SPLIT and more among its `calls`; smaller ones are their own lower half."""
    for call in holder["calls"]:
        for name in _MONEY:
            if call[name] is not None and call[name] >= SPLIT:
                call[f"{name}High"], call[name] = divmod(call[name], SPLIT)


def stored_totals(totals: Totals) -> Document:
    document = totals_to_document(totals)
    for name in _MONEY:
        document[f"{name}High"], document[name] = divmod(document[name], SPLIT)
    return document


def joined(high: int | float, low: int | float) -> int:
    """The amount of a split one, or of the sums of both halves."""
    return int(high) * SPLIT + int(low)


def _joined(totals: Mapping[str, Any]) -> Document:
    whole = {name: joined(totals[f"{name}High"], totals[name]) for name in _MONEY}
    return {**totals, **whole}
