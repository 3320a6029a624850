"""Runs whose process dies at any storage operation, whose replica changes, or whose jobs are taken from them."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from engine.jobs.changes import after_event, deleted
from engine.jobs.job import Job, Lease
from engine.jobs.states import Event, JobState
from engine.records.runs import OPTIMIZER, Run, RunStatus, Withdrawal, cancelled, discarded, paused, resumed
from engine.records.store import Storage
from tests.support.backends import Database
from tests.support.factories import make_run
from tests.support.faulty import Fault, Faulty, Plan
from tests.support.optimizing import Bench, break_down, driven, suggest
from tests.support.service import one_of_each
from tests.support.waiting import eventually
from utilities.clock import SystemClock

pytestmark = pytest.mark.parametrize("backend", one_of_each(), indirect=True)

OPERATIONS = 40
CLOCK = SystemClock()


def begun(storage: Storage, **fields: Any) -> Run:
    run = make_run(**fields)
    storage.runs.add(run)
    return run


def jobs_of(storage: Storage, run: Run) -> list[Job]:
    ids = [iteration.job_id for each in run.model_runs for iteration in each.iterations]
    found = storage.jobs.get_many(ids)
    return [found[job_id] for job_id in ids]


def check(storage: Storage, run: Run) -> None:
    """Two iterations with each of two models, the second of which goes on from the first one's suggestion."""
    assert run.status is RunStatus.COMPLETED
    assert [each.model for each in run.model_runs] == ["m", "n"]
    jobs = jobs_of(storage, run)
    assert [job.client_reference for job in jobs] == [
        {"runId": run.id, "modelIndex": model, "iteration": iteration} for model in (0, 1) for iteration in (0, 1)
    ]
    first, initial = [jobs[0].id, jobs[2].id], run.initial_prompt_ids
    assert [job.working_prompts for job in jobs] == [initial, (first[0],), initial, (first[1],)]
    assert {(job.status, job.metadata.updated_by) for job in jobs} == {(JobState.CONSUMED, OPTIMIZER)}
    assert {role: totals.calls for role, totals in run.spent.items()} == {"work": 4, "eval": 4, "meta": 4}
    assert run.totals.input_tokens == sum(job.totals.input_tokens for job in jobs) > 0


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER, Fault.REPEAT])
def test_a_process_dies_at_any_operation(storage: Storage, fault: Fault) -> None:
    """Whichever operation is the last one of a process: the next process ends the run with the same iterations, each
    of which ran once."""
    hits = range(1, OPERATIONS + 1)
    for hit in hits:
        faulty = Faulty(storage, Plan(fault, hit))
        bench = Bench(faulty, storage)  # type: ignore[arg-type]
        check(storage, bench.stepped(begun(storage).id))
        if faulty.count < hit:
            assert hit > 20, "hardly anything was hit"
            return
    pytest.fail("a run takes more operations than are hit")


GONE = {
    "was canceled": Event.CANCEL,
    "was consumed by somebody else": Event.CONSUME,
    "was rejected": Event.REJECT,
}


@pytest.mark.parametrize("why", [*GONE, "was deleted"])
def test_a_job_is_taken_from_its_run(storage: Storage, why: str) -> None:
    """A job that its client cancels, consumes, rejects or deletes ends the run with the reason."""
    bench, run = Bench(storage, storage), begun(storage)
    bench.errand().step(run)
    if why != "was canceled":
        bench.play(suggest)
    waiting = storage.runs.get(run.id)
    assert waiting is not None
    job = storage.jobs.get(waiting.current_job_id or "")
    assert job is not None
    event = GONE.get(why)
    changed = deleted(job, CLOCK.now(), by="x") if event is None else after_event(job, event, CLOCK.now(), by="x")
    assert storage.jobs.compare_and_set([changed], CLOCK.now()) == [True]
    ended = bench.stepped(run.id)
    assert ended.status is RunStatus.FAILED
    assert why in (ended.failure_reason or "")


def test_a_job_in_error_fails_its_run(storage: Storage) -> None:
    """The reason names the error, and what the job cost is counted."""
    bench, run = Bench(storage, storage), begun(storage)
    ended = bench.stepped(run.id, play=break_down)
    assert ended.status is RunStatus.FAILED
    assert ended.failure_reason is not None
    assert "ended in an error" in ended.failure_reason
    assert ended.totals.calls == 3
    assert ended.model_runs[0].iterations[0].status == "ERROR_PROCESSING"


def test_a_run_without_a_suggestion_fails(storage: Storage) -> None:
    """A job whose meta step gave nothing ends the run with the reason."""
    bench, run = Bench(storage, storage), begun(storage)
    outcome = suggest(jobs_of(storage, bench.stepped(begun(storage).id))[0])
    ended = bench.stepped(run.id, play=lambda job: type(outcome)(result={"text": "a"}))
    assert ended.status is RunStatus.FAILED
    assert "without a suggested prompt" in (ended.failure_reason or "")


@pytest.mark.parametrize("withdrawal", list(Withdrawal))
def test_pausing_takes_the_queued_job_back(storage: Storage, withdrawal: Withdrawal) -> None:
    """A paused run's job leaves the queue, is the same one when the run goes on, and nothing runs twice."""
    bench, run = Bench(storage, storage), begun(storage)
    bench.errand().step(run)
    started = storage.runs.get(run.id)
    assert started is not None
    assert storage.runs.compare_and_set(paused(started, withdrawal, CLOCK.now(), by="x"))
    held = bench.stepped(run.id)
    assert (held.status, held.withdrawal, held.lease) == (RunStatus.PAUSED, None, None)
    assert bench.play(suggest) == []
    assert storage.runs.compare_and_set(resumed(held, CLOCK.now(), by="x"))
    ended = bench.stepped(run.id)
    check(storage, ended)
    assert ended.model_runs[0].iterations[0].job_id == held.current_job_id


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
def test_a_cancelled_run_leaves_no_job(storage: Storage, fault: Fault) -> None:
    """Whichever operation fails on the way, a cancelled and a deleted run leave nothing in the queue."""
    for hit in range(1, 8):
        bench, run = Bench(Faulty(storage, Plan(fault, hit)), storage), begun(storage)  # type: ignore[arg-type]
        Bench(storage, storage).errand().step(run)
        started = storage.runs.get(run.id)
        assert started is not None
        change = discarded if hit % 2 else cancelled
        assert storage.runs.compare_and_set(change(started, CLOCK.now(), by="x"))
        for _ in range(3):
            found = storage.runs.get(run.id)
            if found is not None and found.is_open:
                _step(bench, found)
        job = storage.jobs.get(started.current_job_id or "")
        assert job is not None
        assert job.status is JobState.CANCELED
        assert (storage.runs.get(run.id) is None) == bool(hit % 2)


def _step(bench: Bench, run: Run) -> None:
    from engine.errors import StorageUnavailable

    try:
        bench.errand().step(run)
    except StorageUnavailable:
        return


def test_the_next_step_comes_at_once(database: Database) -> None:
    """From a job's end to the job of the next iteration it takes less than 100 ms in the median."""
    storage = database.open()
    with driven(storage) as process:
        run = process.begin(max_iterations=20, working_models=("m",))
        ended = eventually(lambda: _ended(storage, run), what="the run ended")
    jobs = jobs_of(storage, ended)
    pauses = sorted(
        (later.metadata.created_at - (job.ledger[-1].ended_at or CLOCK.now())).total_seconds()
        for job, later in pairwise(jobs)
    )
    assert len(pauses) == 19
    assert pauses[len(pauses) // 2] < 0.1


def test_another_replica_goes_on(database: Database) -> None:
    """The run of a replica that fell silent is driven by another one when the lease has run out."""
    storage = database.open()
    gone = Lease("gone", CLOCK.now() + timedelta(seconds=0.5))
    run = begun(storage, lease=gone)
    with driven(database.open()):
        check(storage, eventually(lambda: _ended(storage, run), what="the run ended"))


def _ended(storage: Storage, run: Run) -> Run | None:
    found = storage.runs.get(run.id)
    return found if found is not None and not found.is_open else None
