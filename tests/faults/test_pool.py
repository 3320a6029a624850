"""The pool keeps what runs here in step with what is stored, whatever breaks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

from engine.jobs.consumer import Consumer
from engine.records.store import Storage
from engine.records.values import Worker, WorkerLease, WorkerStatus
from tests.support.faulty import Faulty, Plan
from tests.support.rig import Rig, ScriptedHandler, new_job, new_worker, running_pool
from tests.support.waiting import eventually
from utilities.clock import SystemClock

CLOCK = SystemClock()


def _stored(storage: Storage, worker: Worker) -> Worker:
    found = storage.workers.get(worker.id)
    assert found is not None
    return found


def _owner(storage: Storage, worker: Worker) -> str | None:
    lease = _stored(storage, worker).lease
    return lease.owner if lease is not None else None


@contextmanager
def _rig(storage: Storage, worker: Worker, name: str) -> Iterator[Rig]:
    with running_pool(
        storage, ScriptedHandler(), worker=worker, incarnation=name, worker_lease=timedelta(seconds=1)
    ) as rig:
        yield rig


def test_new_jobs_wake_a_fitting_worker_at_once(storage: Storage) -> None:
    """A job posted in the same process is claimed before the idle worker's next poll is due."""
    faulty = Faulty(storage, Plan())
    worker = new_worker(CLOCK, poll=3600)
    storage.workers.add(worker)
    with running_pool(faulty, ScriptedHandler(), worker=worker, reader=storage) as rig:
        eventually(lambda: faulty.log.count("jobs.waiting_clients") == 4)
        rig.post([new_job(CLOCK)])
        rig.wait()
    polls = faulty.instants("jobs.waiting_clients")
    assert polls[4] - polls[3] < 2.0 < 2 * (polls[3] - polls[2]) + 0.5


def test_a_worker_is_run_by_one_replica_and_taken_over_by_another(storage: Storage) -> None:
    """Two pools, one worker: one has the lease; when it ends the other one takes the worker over and goes on."""
    worker = new_worker(CLOCK)
    storage.workers.add(worker)
    with _rig(storage, worker, "first") as first:
        eventually(lambda: _owner(storage, worker) == "first")
        with _rig(storage, worker, "second") as second:
            first.post([new_job(CLOCK) for _ in range(5)])
            first.wait()
            assert _owner(storage, worker) == "first"
            assert second.pool.in_flight == 0
            assert not second.handler.calls
            first.pool.drain(timedelta(seconds=5))
            second.post([new_job(CLOCK)])
            second.wait()
            assert _owner(storage, worker) == "second"


def test_a_stop_stored_by_anyone_stops_the_worker(storage: Storage) -> None:
    """Stopped is desired state: whoever stored it, the pool that runs the worker follows, and follows a new start."""
    worker = new_worker(CLOCK)
    storage.workers.add(worker)
    with _rig(storage, worker, "one") as rig:
        rig.post([new_job(CLOCK)])
        rig.wait()
        _change(storage, worker, status=WorkerStatus.STOPPED, lease=None)
        eventually(lambda: not rig.pool.runs(worker.id))
        waiting = new_job(CLOCK)
        rig.post([waiting])
        assert not rig.handler.calls[waiting.id]
        started = rig.pool.placed(_stored(storage, worker), CLOCK.now())
        _change(storage, worker, status=WorkerStatus.RUNNING, lease=started.lease, started_at=started.started_at)
        rig.pool.nudge()
        rig.wait()


def _change(storage: Storage, worker: Worker, **fields: object) -> None:
    """Write as the API does: again where the pool's renewal came in between."""
    eventually(lambda: storage.workers.compare_and_set(replace(_stored(storage, worker), **fields)))


def test_a_worker_whose_lease_was_taken_stops_here(storage: Storage) -> None:
    """Where another replica has taken a worker over, this one stops running it."""
    worker = new_worker(CLOCK)
    storage.workers.add(worker)
    with _rig(storage, worker, "slow") as rig:
        eventually(lambda: rig.pool.runs(worker.id))
        _change(storage, worker, lease=WorkerLease("other", CLOCK.now() + timedelta(minutes=1)))
        eventually(lambda: not rig.pool.runs(worker.id))
    assert _owner(storage, worker) == "other"


def test_a_consumer_that_breaks_is_started_again(storage: Storage) -> None:
    """An error no one foresaw ends one consumer; the pool notices and starts it anew."""
    worker = new_worker(CLOCK)
    storage.workers.add(worker)
    with _rig(storage, worker, "one") as rig:
        first = eventually(lambda: rig.pool.runs(worker.id))
        _break(first)
        eventually(lambda: rig.pool.runs(worker.id) not in (None, first))
        rig.post([new_job(CLOCK)])
        rig.wait()


def _break(consumer: Consumer) -> None:
    """Makes the consumer's next claim fail in a way no policy knows."""
    del consumer._claimer  # type: ignore[attr-defined]
    consumer.wake()
