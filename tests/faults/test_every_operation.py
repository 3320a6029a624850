"""Whatever storage operation goes wrong, and however: every job ends once, and the ledger has every call.

Faults 3, 6 and 7 of the list in docs/promises.md, by brute force: a run with retries, a failure and a redelivery is
repeated, and in each repetition another storage operation fails before or after its commit, is done twice, or is
overtaken by others.
"""

from datetime import timedelta

import pytest

from engine.jobs.job import Job
from engine.jobs.states import JobState
from engine.llm import PermanentProviderError, TransientProviderError
from engine.records.store import Storage
from tests.support.faulty import Fault, Faulty, Plan
from tests.support.rig import Rig, ScriptedHandler, new_job, new_worker, running_pool
from tests.support.service import one_of_each
from utilities.clock import SystemClock

pytestmark = pytest.mark.parametrize("backend", one_of_each(), indirect=True)

LEASE = timedelta(seconds=1)
OPERATIONS = 40


async def _script(job: Job, number: int) -> None:
    kind = job.request_data["kind"]
    if kind == "flaky" and number == 1:
        raise TransientProviderError("the first call fails")
    if kind == "broken":
        raise PermanentProviderError("no call succeeds")


def _jobs() -> list[Job]:
    clock = SystemClock()
    kinds = ["good", "flaky", "good", "broken", "good", "flaky"]
    return [new_job(clock, f"client-{place % 2}", request_data={"kind": kind}) for place, kind in enumerate(kinds)]


def _run(storage: Storage, plan: Plan) -> tuple[Faulty, dict[str, Job], ScriptedHandler, Rig]:
    faulty = Faulty(storage, plan)
    handler = ScriptedHandler(_script)
    worker = new_worker(SystemClock())
    storage.workers.add(worker)
    with running_pool(faulty, handler, worker=worker, lease=LEASE, reader=storage) as rig:
        rig.post(_jobs()[:4])
        rig.post(_jobs()[4:])
        jobs = rig.wait()
    return faulty, jobs, handler, rig


def _check(jobs: dict[str, Job], handler: ScriptedHandler, rig: Rig, storage: Storage) -> None:
    assert sorted(jobs) == sorted(rig.posted)
    for job in storage.jobs.get_many(rig.posted).values():
        broken = job.request_data["kind"] == "broken"
        assert job.status == (JobState.ERROR_PROCESSING if broken else JobState.PROCESSED)
        assert job.lease is None
        assert (job.failure is not None) == broken
        assert job.attempts <= job.max_attempts
        assert handler.calls[job.id] == job.totals.calls == sum(len(entry.calls) for entry in job.ledger)
        assert sum(entry.charged for entry in job.ledger) == job.attempts


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("hit", range(1, OPERATIONS + 1))
def test_one_operation_goes_wrong(storage: Storage, fault: Fault, hit: int) -> None:
    """Results plus errors equal what was accepted, each exactly once, with every call on the ledger, whichever
    operation is hit."""
    _, jobs, handler, rig = _run(storage, Plan(fault, hit))
    _check(jobs, handler, rig, storage)


def test_the_operations_hit_are_those_of_a_run(storage: Storage) -> None:
    """A run takes fewer operations than are hit above, so that none is left out."""
    faulty, jobs, handler, rig = _run(storage, Plan())
    _check(jobs, handler, rig, storage)
    assert {"jobs.insert", "jobs.claim", "jobs.settle", "workers.running", "workers.renew"} <= set(faulty.log)
    settled = max(place for place, name in enumerate(faulty.log, 1) if name == "jobs.settle")
    assert settled <= OPERATIONS


@pytest.mark.parametrize("hit", [3, 6, 9, 12, 15])
def test_an_outage_of_many_operations(storage: Storage, hit: int) -> None:
    """Faults 6 and 7: the database is away for a dozen operations in a row; paid results are kept and written."""
    _, jobs, handler, rig = _run(storage, Plan(Fault.BEFORE, hit, hit + 12))
    _check(jobs, handler, rig, storage)
