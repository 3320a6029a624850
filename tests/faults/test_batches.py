"""Batches whose process dies at any storage operation, that are cancelled or expire, or whose jobs are taken away."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from engine.batches.sweeping import Sweeper
from engine.errors import LeaseLost, StorageUnavailable
from engine.jobs.changes import after_event, deleted
from engine.jobs.job import Job
from engine.jobs.outcome import Completed, DeadLettered, Outcome
from engine.jobs.queue import JobQuery, JobQueue, Page
from engine.jobs.states import Event, JobState
from engine.llm import Usage
from engine.records.batches import Batch, BatchStatus, cancelling
from engine.records.store import Storage, Where
from tests.support.backends import SQLITE
from tests.support.batching import Bench, done, jsonl, line, new_batch, stored_file, with_model, work
from tests.support.factories import make_failure
from tests.support.faulty import Fault, Faulty, Plan
from tests.support.service import one_of_each
from utilities.clock import SystemClock
from utilities.json_depth import DEEPEST

pytestmark = pytest.mark.parametrize("backend", one_of_each(), indirect=True)

CLOCK = SystemClock()
OPERATIONS = 60
IDS = ("one", "two", "bad", "four", "five")
CONTENT = jsonl(map(line, IDS)).replace(b'{"custom_id": "bad"', b'\n{"custom_id": "bad"').rstrip(b"\n")
"""Five requests, a blank line among them, and no end to the last one: three slices."""


def one_bad(job: Job) -> Outcome:
    return DeadLettered(make_failure(status=None, complaint=None)) if job.client_job_id == "bad" else done(job)


def never(_job: Job) -> Outcome | None:
    return None


def jobs_of(storage: Storage) -> list[Job]:
    return storage.jobs.find(JobQuery(operation="batch"), Page())


def accounted(bench: Bench, batch: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
    """Responses and errors by custom_id; each of them is there once, and the batch has counted them."""
    answered, failed = bench.lines_of(batch.output_file_id), bench.lines_of(batch.error_file_id)
    assert sorted(each["custom_id"] for each in answered + failed) == sorted(IDS)
    assert (batch.total, batch.completed, batch.failed) == (len(IDS), len(answered), len(failed))
    assert all(each["error"] is None for each in answered)
    return {each["custom_id"]: each["response"] for each in answered}, {
        each["custom_id"]: each["error"] for each in failed
    }


def check(bench: Bench, batch: Batch) -> None:
    """Four answers in the input's order, one failure; all that was called is counted."""
    assert batch.status is BatchStatus.COMPLETED
    answered, failed = accounted(bench, batch)
    assert list(answered) == ["one", "two", "four", "five"]
    assert {name: shown["body"]["said"] for name, shown in answered.items()} == {name: name for name in answered}
    assert failed == {"bad": {"code": "UnusableAnswer", "message": "not JSON"}}
    assert batch.usage == Usage(input_tokens=50, output_tokens=100)
    assert batch.in_progress_at is not None
    assert batch.completed_at is not None


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER, Fault.REPEAT])
def test_a_process_dies_at_any_operation(storage: Storage, fault: Fault) -> None:
    """Whichever operation is the last one of a process: the next one ends the batch with the same files, counts and
    usage, and each request ran once."""
    with_model(storage)
    for hit in range(1, OPERATIONS + 1):
        faulty = Faulty(storage, Plan(fault, hit))
        bench = Bench(faulty, storage)  # type: ignore[arg-type]
        batch = bench.stepped(new_batch(storage, CONTENT).id, one_bad)
        check(bench, batch)
        mine = [job for job in jobs_of(storage) if (job.client_reference or {})["batchId"] == batch.id]
        assert sorted(len(job.ledger) for job in mine) == [1] * len(IDS)
        if faulty.count < hit:
            assert hit > 20, "hardly anything was hit"
            return
    pytest.fail("a batch takes more operations than are hit")


@pytest.mark.parametrize("steps", [4, 200])
def test_a_process_is_frozen_while_it_writes_results(storage: Storage, backend: str, steps: int) -> None:
    """Before whichever operation it stands still while another process goes on for some steps or to the end: when it
    writes again, nothing of what the batch's owner gets is touched, and there are no other files of results."""
    with_model(storage)
    for hit in range(1, OPERATIONS + 1, 1 if backend == SQLITE else 4):
        bench, batch = Bench(storage, storage), new_batch(storage, CONTENT)
        while storage.batches.get(batch.id).status is not BatchStatus.FINALIZING:  # type: ignore[union-attr]
            bench.step(batch.id)
            work(storage, one_bad)
        frozen = Faulty(storage, Plan(Fault.FREEZE, hit, meanwhile=partial(goes_on, bench, batch.id, steps)))
        ended = Bench(frozen, storage).stepped(batch.id)  # type: ignore[arg-type]
        check(bench, ended)
        seen = storage.files.find(Where(equals={"status": ["processed"]}), Page(newest_first=True))
        ours = {file.id for file in seen if file.filename.startswith(batch.id)}
        assert ours == {ended.output_file_id, ended.error_file_id}
        if frozen.count < hit:
            assert hit > 10, "hardly anything was hit"
            return
    pytest.fail("the results take more operations than are hit")


def goes_on(bench: Bench, batch_id: str, steps: int) -> None:
    """Another process makes so many steps, or all that are left."""
    for _ in range(steps):
        if not bench.step(batch_id):
            return


@pytest.mark.parametrize("outage", [False, True])
def test_a_process_is_frozen_while_it_inserts(storage: Storage, outage: bool) -> None:
    """Before whichever operation it stands still while its batch is cancelled and ended by another process: jobs that
    it makes then do not run, also where that operation fails and it looks at the batch only later."""
    with_model(storage)
    for hit in range(1, OPERATIONS + 1):
        bench, batch = Bench(storage, storage), new_batch(storage, CONTENT)
        bench.step(batch.id)

        def cancelled(batch_id: str = batch.id, bench: Bench = bench) -> None:
            current = storage.batches.get(batch_id)
            assert current is not None
            assert storage.batches.compare_and_set(cancelling(current, CLOCK.now(), by="client"))
            bench.stepped(batch_id, never)
            if outage:
                raise StorageUnavailable("the connection is broken")

        frozen = Faulty(storage, Plan(Fault.FREEZE, hit, meanwhile=cancelled))
        errand = Bench(frozen, storage).errand()  # type: ignore[arg-type]
        with suppress(LeaseLost, StorageUnavailable):
            if (seen := errand.get(batch.id)) is not None:
                errand.step(seen)
        if frozen.count < hit:
            assert hit > 4, "hardly anything was hit"
            return
        assert errand.get(batch.id) is None
        assert {job.status for job in jobs_of(storage)} <= {JobState.CANCELED}
    pytest.fail("a slice takes more operations than are hit")


@pytest.mark.parametrize("steps", [0, 1, 2, 4])
def test_cancelling_keeps_what_was_done(storage: Storage, steps: int) -> None:
    """Cancelled before validation, while jobs are made, or when some are done: what has a result is in the output, the
    others are told to be cancelled, and nothing runs any more."""
    with_model(storage)
    bench, batch = Bench(storage, storage), new_batch(storage, CONTENT)
    for _ in range(steps):
        bench.step(batch.id)
    work(storage, lambda job: done(job) if job.client_job_id in ("one", "four") else None)
    current = storage.batches.get(batch.id)
    assert current is not None
    assert storage.batches.compare_and_set(cancelling(current, CLOCK.now(), by="client"))
    ended = bench.stepped(batch.id, never)
    assert ended.status is BatchStatus.CANCELLED
    assert ended.cancelled_at is not None
    if steps == 0:
        assert (ended.total, ended.output_file_id, ended.error_file_id) == (0, None, None)
        return
    answered, failed = accounted(bench, ended)
    assert set(answered) == {1: set(), 2: {"one"}, 4: {"one", "four"}}[steps]
    assert {error["code"] for error in failed.values()} == {"batch_cancelled"}
    assert {job.status for job in jobs_of(storage)} <= {JobState.PROCESSED, JobState.CANCELED}


def test_what_is_not_done_in_time_expires(storage: Storage) -> None:
    """When the window is over, results are kept and the others are told to have expired; calls under way are fenced."""
    with_model(storage)
    bench, batch = Bench(storage, storage), new_batch(storage, CONTENT)
    for _ in range(4):
        bench.step(batch.id)
    work(storage, lambda job: done(job) if job.client_job_id == "two" else None)
    current = storage.batches.get(batch.id)
    assert current is not None
    assert storage.batches.compare_and_set(replace(current, expires_at=CLOCK.now() - timedelta(seconds=1)))
    ended = bench.stepped(batch.id, never)
    assert ended.status is BatchStatus.EXPIRED
    answered, failed = accounted(bench, ended)
    assert list(answered) == ["two"]
    assert {error["code"] for error in failed.values()} == {"batch_expired"}
    assert {job.status for job in jobs_of(storage)} == {JobState.PROCESSED, JobState.CANCELED}


def test_jobs_that_others_took_away_are_accounted_for(storage: Storage) -> None:
    """A request whose job its client cancels or deletes is an error with a plain code, a consumed one an answer."""
    with_model(storage)
    bench, batch = Bench(storage, storage), new_batch(storage, CONTENT)
    for _ in range(4):
        bench.step(batch.id)
    jobs = {job.client_job_id: job for job in jobs_of(storage)}
    now = CLOCK.now()
    gone = [after_event(jobs["one"], Event.CANCEL, now, by="client"), deleted(jobs["two"], now, by="client")]
    assert storage.jobs.compare_and_set(gone, now) == [True, True]
    work(storage, done)
    fetched = storage.jobs.get(jobs["five"].id)
    assert fetched is not None
    assert storage.jobs.compare_and_set([after_event(fetched, Event.CONSUME, now, by="client")], now) == [True]
    answered, failed = accounted(bench, bench.stepped(batch.id))
    assert set(answered) == {"bad", "four", "five"}
    assert {error["code"] for error in failed.values()} == {"request_canceled"}


class _Between:
    """A queue after whose inserts something happens."""

    def __init__(self, queue: JobQueue, then: Callable[[], None]) -> None:
        self._queue = queue
        self._then = then

    def insert(self, jobs: Sequence[Job]) -> None:
        self._queue.insert(jobs)
        self._then()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)


@pytest.mark.parametrize("how", ["crash, cancel", "cancel", "crash, expiry"])
def test_jobs_that_no_progress_knows_of_are_taken_back(storage: Storage, how: str) -> None:
    """A batch that is cancelled or expires between the inserting of jobs and the saving of that leaves none of them."""
    with_model(storage)
    bench, batch = Bench(storage, storage), new_batch(storage, CONTENT)
    bench.step(batch.id)

    def cancel() -> None:
        current = storage.batches.get(batch.id)
        assert current is not None
        assert storage.batches.compare_and_set(cancelling(current, CLOCK.now(), by="client"))

    def crash() -> None:
        raise StorageUnavailable("the process ends here")

    dying = bench.errand(queue=_Between(storage.jobs, cancel if how == "cancel" else crash))
    with suppress(LeaseLost, StorageUnavailable):
        dying.step(storage.batches.get(batch.id))  # type: ignore[arg-type]
    if how == "crash, cancel":
        cancel()
    if how == "crash, expiry":
        current = storage.batches.get(batch.id)
        assert current is not None
        assert storage.batches.compare_and_set(replace(current, expires_at=CLOCK.now() - timedelta(seconds=1)))
    ended = bench.stepped(batch.id, never)
    assert ended.inserted == 0
    assert len(jobs_of(storage)) == 2
    assert {job.status for job in jobs_of(storage)} == {JobState.CANCELED}


def test_an_input_that_is_lost_ends_the_batch(storage: Storage) -> None:
    """The jobs that were made are taken back, and the batch has failed and says why."""
    with_model(storage)
    bench, batch = Bench(storage, storage), new_batch(storage, CONTENT)
    for _ in range(2):
        bench.step(batch.id)
    storage.contents.drop(batch.input_file_id)
    ended = bench.stepped(batch.id, never)
    assert (ended.status, ended.problems[0].code) == (BatchStatus.FAILED, "file_not_found")
    assert {job.status for job in jobs_of(storage)} == {JobState.CANCELED}


def test_requests_and_answers_that_are_as_deep_as_may_be(storage: Storage) -> None:
    """Whatever a batch and a provider may bring is stored, read again and written into the results."""
    with_model(storage)
    body: Any = line("deep")["body"] | {"deep": json.loads("[" * (DEEPEST - 2) + "]" * (DEEPEST - 2))}
    answer: Any = json.loads('{"a":' + "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1) + "}")
    bench, batch = Bench(storage, storage), new_batch(storage, jsonl([line("deep", body=body)]))
    ended = bench.stepped(batch.id, lambda _: Completed(result=answer))
    [shown] = bench.lines_of(ended.output_file_id)
    assert shown["response"]["body"] == answer
    assert storage.jobs.find(JobQuery(operation="batch"), Page())[0].request_data == body


def test_a_model_is_looked_up_once(storage: Storage) -> None:
    """However many lines name it."""
    with_model(storage)
    faulty = Faulty(storage, Plan())
    batch = new_batch(storage, jsonl(line(str(number)) for number in range(200)))
    assert Bench(faulty, storage).step(batch.id)  # type: ignore[arg-type]
    assert faulty.log.count("models.count") == 1


@pytest.mark.parametrize("hit", range(1, 7))
def test_a_file_that_is_over_goes_whole(storage: Storage, hit: int) -> None:
    """Wherever an outage comes in between, a later sweep finds what is left of it; what a batch reads stays."""
    over = CLOCK.now() - timedelta(hours=12)
    read = new_batch(storage, CONTENT).input_file_id
    files = [stored_file(storage, b"x"), storage.files.get(read)]
    for file in files:
        assert file is not None
        assert storage.files.compare_and_set(replace(file, expires_at=over))
    faulty = Faulty(storage, Plan(Fault.BEFORE, hit))
    with suppress(StorageUnavailable):
        Sweeper(Bench(faulty, storage).tools()).sweep()  # type: ignore[arg-type]
    for file in storage.files.find(Where(equals={"status": ["uploading"]}), Page()):
        touched = replace(file.metadata, updated_at=over)
        assert storage.files.compare_and_set(replace(file, metadata=touched))
    Sweeper(Bench(storage, storage).tools()).sweep()
    assert files[0] is not None
    assert (storage.files.get(files[0].id), storage.contents.get(files[0].id, 0)) == (None, None)
    assert storage.contents.get(read, 0) is not None


def test_two_replicas_at_a_time(storage: Storage) -> None:
    """Two processes that both take themselves for the batch's driver end it once, with nothing twice or missing."""
    with_model(storage)
    bench, batch = Bench(storage, storage), new_batch(storage, CONTENT)
    one, other = bench.errand(), bench.errand()
    for _ in range(100):
        seen = one.get(batch.id)
        if seen is None:
            break
        for errand in (one, other):
            with suppress(LeaseLost):
                errand.step(seen)
        work(storage, one_bad)
    ended = storage.batches.get(batch.id)
    assert ended is not None
    check(bench, ended)
