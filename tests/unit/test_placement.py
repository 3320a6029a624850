"""Which workers a replica takes, starts and stops."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from engine.metadata import Metadata
from engine.records.values import Worker, WorkerConfig, WorkerLease, WorkerScope, WorkerStatus
from llm_workers.placement import Plan, planned

NOW = datetime(2026, 5, 1, tzinfo=UTC)
WORKER = Worker(
    id="1" * 24,
    name="w",
    client_id="c",
    scope=WorkerScope.CLIENT,
    status=WorkerStatus.RUNNING,
    config=WorkerConfig(poll_interval=1, max_items_per_batch=1),
    metadata=Metadata(created_at=NOW),
    started_at=NOW,
)


def _leased(owner: str, seconds: float) -> Worker:
    return replace(WORKER, lease=WorkerLease(owner, NOW + timedelta(seconds=seconds)))


def _plan(worker: Worker | None, here: dict[str, datetime | None], *, taking: bool = True) -> Plan:
    return planned([worker] if worker else [], here, "me", NOW, taking=taking)


def test_a_worker_nobody_runs_is_taken() -> None:
    """No lease, or one that has run out, makes a worker free for any replica."""
    assert _plan(WORKER, {}).take == (WORKER,)
    assert _plan(_leased("other", 0), {}).take == (_leased("other", 0),)


def test_a_worker_another_replica_runs_is_left_alone() -> None:
    """While another replica's lease lasts, nothing is taken or started."""
    assert _plan(_leased("other", 1), {}) == Plan((), (), frozenset())


def test_a_worker_placed_here_is_started_once() -> None:
    """The lease names this process: start it if it does not run yet, leave it if it does."""
    assert _plan(_leased("me", 1), {}).start == (_leased("me", 1),)
    assert _plan(_leased("me", 1), {WORKER.id: NOW}) == Plan((), (), frozenset())


def test_what_is_not_desired_here_is_stopped() -> None:
    """Stopped, deleted, or taken by another replica: it stops here."""
    assert _plan(None, {WORKER.id: NOW}).stop == {WORKER.id}
    assert _plan(_leased("other", 9), {WORKER.id: NOW}).stop == {WORKER.id}


def test_a_worker_started_again_meanwhile_is_replaced() -> None:
    """Stopped and started between two looks: the old consumer stops, a new one with the new settings starts."""
    plan = _plan(_leased("me", 1), {WORKER.id: NOW - timedelta(seconds=5)})
    assert plan.stop == {WORKER.id}
    assert plan.start == (_leased("me", 1),)


def test_a_draining_replica_takes_nothing() -> None:
    """On drain neither free workers nor placed ones are started."""
    assert _plan(WORKER, {}, taking=False) == Plan((), (), frozenset())
    assert _plan(_leased("me", 1), {}, taking=False).start == ()
