"""A job queue in memory, made of the pure functions alone: what every back-end must agree with."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from engine.jobs.changes import after_event, after_settlement, with_attempt
from engine.jobs.job import ZERO, Attempt, Call, Job, Lease
from engine.jobs.matching import mismatches
from engine.jobs.outcome import Settlement
from engine.jobs.queue import ClaimFilter, ClaimRequest, Hold, SummaryRow
from engine.jobs.states import Event, JobState
from engine.storage.codec import Line, line_of
from engine.usage import UsageRow


@dataclass
class QueueModel:
    """`jobs` are the live ones, `lines` where they stand, `buried` the deleted ones. Revisions are not modelled."""

    jobs: dict[str, Job] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)
    buried: dict[str, Job] = field(default_factory=dict)

    def put(self, job: Job, now: datetime) -> None:
        """`job` as it is from now on."""
        if job.metadata.is_deleted:
            del self.jobs[job.id], self.lines[job.id]
            self.buried[job.id] = job
        else:
            self.jobs[job.id] = job
            self.lines[job.id] = line_of(job, now)

    def ready(self, wanted: ClaimFilter) -> list[Job]:
        """Ready jobs that pass, in the order of claims."""
        passing = [job for job in self.jobs.values() if self.lines[job.id] is Line.READY]
        passing = [job for job in passing if not mismatches(wanted, job)]
        return sorted(passing, key=lambda job: (job.priority, job.id))

    def claim(self, request: ClaimRequest, now: datetime) -> list[Job]:
        lease = Lease(request.owner, request.expires_at)
        chosen = self.ready(request.filter)[: request.limit]
        claimed = [after_event(job, Event.CLAIM, now, by="worker", lease=lease) for job in chosen]
        for job in claimed:
            self.put(job, now)
        return claimed

    def extend(self, holds: Sequence[Hold], expires_at: datetime) -> frozenset[str]:
        kept = set()
        for hold in holds:
            job = self.jobs.get(hold.job_id)
            if job is not None and job.lease is not None and job.token == hold.token:
                self.jobs[job.id] = replace(job, lease=replace(job.lease, expires_at=expires_at))
                kept.add(job.id)
        return frozenset(kept)

    def settle(self, settlement: Settlement, now: datetime) -> bool:
        job = self.jobs.get(settlement.job_id)
        if job is None:
            return False
        changed = after_settlement(job, settlement, now)
        if changed is not None:
            self.put(changed, now)
            return True
        shown = [entry.outcome for entry in job.ledger if entry.token == settlement.token]
        return settlement.attempt is not None and shown == [settlement.attempt.outcome]

    def book(self, job_id: str, attempt: Attempt) -> bool:
        home = self.jobs if job_id in self.jobs else self.buried
        changed = with_attempt(home[job_id], attempt)
        booked = changed is not home[job_id]
        home[job_id] = changed
        return booked

    def promote(self, now: datetime) -> int:
        due = [job_id for job_id, line in self.lines.items() if line is Line.LATER and self._is_due(job_id, now)]
        self.lines.update(dict.fromkeys(due, Line.READY))
        return len(due)

    def _is_due(self, job_id: str, now: datetime) -> bool:
        due_at = self.jobs[job_id].due_at
        return due_at is not None and due_at <= now

    def next_due(self) -> datetime | None:
        times = [job.due_at for job in self.jobs.values() if self.lines[job.id] is Line.LATER]
        times += [job.lease.expires_at for job in self.jobs.values() if job.lease is not None]
        return min((time for time in times if time is not None), default=None)


UsageSums = dict[tuple[object, ...], tuple[object, ...]]


def usage_of(jobs: Iterable[Job]) -> UsageSums:
    """What all calls on these jobs' ledgers add up to, by day, client, model, operation and currency."""
    calls: dict[tuple[object, ...], list[Call]] = {}
    for job in jobs:
        for call in (call for entry in job.ledger for call in entry.calls):
            key = (call.started_at.date(), job.client_id, call.model, job.operation, call.currency)
            calls.setdefault(key, []).append(call)
    return {key: _usage(group) for key, group in calls.items()}


_SUMMED = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens", "input_cost", "output_cost")


def by_dimensions(rows: Iterable[UsageRow]) -> UsageSums:
    """Rows in the form of `usage_of`."""
    return {
        (row.day, row.client_id, row.model, row.operation, row.currency): tuple(
            getattr(row, name) for name in ("calls", "errors", "unknown", *_SUMMED)
        )
        for row in rows
    }


def _usage(calls: list[Call]) -> tuple[object, ...]:
    outcomes = [call.outcome for call in calls]
    sums = (sum((getattr(call, name) or 0 for call in calls), ZERO) for name in _SUMMED)
    return (len(calls), outcomes.count("error"), outcomes.count("unknown"), *sums)


SummaryKey = tuple[JobState, frozenset[str]]


def summary_of(jobs: Iterable[Job]) -> dict[SummaryKey, SummaryRow]:
    """What a summary over exactly these jobs says, by what each row is of."""
    groups: dict[SummaryKey, list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.status, job.totals.currencies), []).append(job)
    return {key: _row(key, group) for key, group in groups.items()}


def by_key(rows: Iterable[SummaryRow]) -> dict[SummaryKey, SummaryRow]:
    """Rows by what they are of; AssertionError where two are of the same."""
    listed = list(rows)
    found = {(row.status, row.currencies): row for row in listed}
    assert len(found) == len(listed)
    return found


def _row(key: SummaryKey, jobs: list[Job]) -> SummaryRow:
    return SummaryRow(
        status=key[0],
        currencies=key[1],
        count=len(jobs),
        measured=sum(job.totals.calls > 0 for job in jobs),
        input_tokens=sum(job.totals.input_tokens for job in jobs),
        output_tokens=sum(job.totals.output_tokens for job in jobs),
        duration=sum(job.totals.duration for job in jobs),
        input_cost=sum((job.totals.input_cost for job in jobs), ZERO),
        output_cost=sum((job.totals.output_cost for job in jobs), ZERO),
    )
