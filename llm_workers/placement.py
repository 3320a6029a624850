"""Which workers this replica runs: a pure comparison of what is stored with what runs here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from engine.records.values import Worker


@dataclass(frozen=True, slots=True)
class Plan:
    """`take`: workers nobody runs. `start`: ours that do not run yet. `stop`: ids of what runs and should not."""

    take: tuple[Worker, ...]
    start: tuple[Worker, ...]
    stop: frozenset[str]


def planned(
    desired: Iterable[Worker], here: Mapping[str, datetime | None], incarnation: str, now: datetime, *, taking: bool
) -> Plan:
    """What to do. `desired` are all workers that shall run, `here` the ids that run in this process with the
    startedAt each was started for: a worker stopped and started again is another one. `taking` is False on drain."""
    wanted = {worker.id: worker for worker in desired}
    ours = {key: worker for key, worker in wanted.items() if worker.lease and worker.lease.owner == incarnation}
    free = [worker for worker in wanted.values() if worker.lease is None or worker.lease.expires_at <= now]
    stale = {key for key, started_at in here.items() if key not in ours or ours[key].started_at != started_at}
    start = [worker for key, worker in ours.items() if key not in here or key in stale]
    take = [worker for worker in free if worker.id not in ours]
    return Plan(tuple(take) if taking else (), tuple(start) if taking else (), frozenset(stale))
