"""A settlement as it changes a job's row, without making a Job of it: the hot path behind every finished call.

What it does is defined by engine.jobs.changes.after_settlement; tests/contract holds the two together.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from engine.jobs.changes import added
from engine.jobs.job import Attempt, Totals, totals_of
from engine.jobs.outcome import EVENT_OF, Completed, DeadLettered, Expired, Outcome, Retried, Settlement
from engine.jobs.states import TRANSITIONS, JobState
from engine.storage.codec import (
    Document,
    Line,
    attempt_to_document,
    failure_to_document,
    json_text,
    totals_from_document,
    totals_to_document,
)
from engine.storage.sqlite.counters import Place
from engine.storage.sqlite.rows import FRESH, json_of, to_ms

READ_HELD = (
    "SELECT client_id, status, line, operation, model, token, lease_until, texts, totals, progress "
    "FROM jobs WHERE id = ? AND deleted = 0"
)
WRITE_SETTLED = (
    "UPDATE jobs SET status = ?, line = ?, due_at = ?, token = ?, lease_owner = NULL, lease_until = NULL, "
    "updated_at = ?, updated_by = 'worker', revision = revision + 1, totals = ?, progress = ? WHERE id = ?"
)


class Held(NamedTuple):
    """What READ_HELD reads."""

    client_id: str
    status: str
    line: str
    operation: str
    model: str
    token: int
    lease_until: int | None
    texts: int
    totals: str | None
    progress: str | None

    @property
    def place(self) -> Place:
        return Place(self.client_id, self.status, self.line, self.operation, self.model)


class Settled(NamedTuple):
    """What WRITE_SETTLED writes, its two constants and the id aside."""

    status: str
    line: str
    due_at: int | None
    token: int
    updated_at: int
    totals: str | None
    progress: str


def admits(held: Held, settlement: Settlement, now: datetime) -> bool:
    """The guard of JobQueue.settle."""
    if held.status != JobState.PROCESSING or held.token != settlement.token:
        return False
    return not settlement.only_expired or (held.lease_until is not None and held.lease_until <= to_ms(now))


def written_before(held: Held, settlement: Settlement) -> bool:
    """Whether the ledger shows this settlement's attempt: it is a repetition."""
    if settlement.attempt is None or held.progress is None:
        return False
    entry = _entry(orjson.loads(held.progress)["ledger"], settlement.token)
    return entry is not None and entry["outcome"] == settlement.attempt.outcome


def settled(held: Held, settlement: Settlement, now: datetime) -> tuple[Settled, Sequence[Document]]:
    """The row after a settlement that `admits` lets pass, and the calls that are new on its ledger."""
    progress: Document = {**FRESH} if held.progress is None else orjson.loads(held.progress)
    totals: str | None = held.totals
    calls: Sequence[Document] = ()
    if settlement.attempt is not None:
        totals, calls = book_attempt(progress, held.totals, settlement.attempt)
    due_at = _apply(progress, settlement.outcome, to_ms(now))
    status = TRANSITIONS[EVENT_OF[type(settlement.outcome)]].target
    line = Line.NONE
    if status is JobState.PENDING:
        line = Line.READY if due_at is None else Line.LATER
    token = held.token + isinstance(settlement.outcome, Expired)
    return Settled(str(status), str(line), due_at, token, to_ms(now), totals, json_of(progress)), calls


def _apply(progress: Document, outcome: Outcome, now: int) -> int | None:
    """Write the outcome into `progress`; answers when the job is due again, None for now or never."""
    if isinstance(outcome, Completed):
        progress["responseData"] = json_text(outcome.result)
        progress["evalResult"] = json_text(outcome.eval_result)
        progress["suggestedPromptId"] = outcome.suggested_prompt_id
        progress["errorData"] = None
    elif isinstance(outcome, Retried):
        progress["attempts" if outcome.charged else "waits"] += 1
        progress["errorData"] = failure_to_document(outcome.failure)
        due_at = to_ms(outcome.due_at)
        return due_at if due_at > now else None
    elif isinstance(outcome, DeadLettered):
        progress["errorData"] = failure_to_document(outcome.failure)
        progress["attempts"] = outcome.failure.attempts
    elif isinstance(outcome, Expired):
        progress["leasesLost"] += 1
    return None


def book_attempt(progress: Document, totals: str | None, attempt: Attempt) -> tuple[str | None, Sequence[Document]]:
    """Put `attempt` on the ledger in `progress`; answers the totals with its calls, and these.

    An entry of the same token stays if it had calls; `books` tells beforehand.
    """
    if not books(progress, attempt):
        return totals, ()
    entry = attempt_to_document(attempt)
    others = [other for other in progress["ledger"] if other["token"] != attempt.token]
    progress["ledger"] = sorted((*others, entry), key=lambda each: int(each["token"]))
    if not attempt.calls:
        return totals, ()
    before = Totals() if totals is None else totals_from_document(orjson.loads(totals))
    return json_of(totals_to_document(added(before, totals_of(attempt.calls)))), entry["calls"]


def books(progress: Document, attempt: Attempt) -> bool:
    """Whether the ledger takes `attempt`: no entry of its token has calls."""
    entry = _entry(progress["ledger"], attempt.token)
    return entry is None or not entry["calls"]


def _entry(ledger: list[Any], token: int) -> Any:
    return next((entry for entry in ledger if entry["token"] == token), None)
