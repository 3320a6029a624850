"""Searches that meet others at the same instant: processes that have lost a run without knowing, and rival proofs."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine.errors import LeaseLost
from engine.jobs.job import Lease
from engine.records.runs import Run
from engine.records.searches import SearchTerms
from engine.records.store import Storage
from llm_optimizer.looks import Looks
from tests.faults.test_searches import CLOCK, begun, new_toy, told
from tests.support.factories import IDS, make_run
from tests.support.faulty import Fault, Faulty, Plan
from tests.support.optimizing import Bench
from tests.support.service import one_of_each

pytestmark = pytest.mark.parametrize("backend", one_of_each(), indirect=True)


def looking(dataset: str, **fields: Any) -> Run:
    return make_run(id=IDS.new(), search=SearchTerms(dataset_id=dataset), **fields)


def test_proofs_at_the_same_instant_are_told_apart(storage: Storage) -> None:
    """However many begin together, each counts one more; who asks again, as a process that was killed, is told the
    same, and another judge's examples are counted by themselves."""
    looks, dataset = Looks(storage.runs, storage.run_parts, CLOCK), IDS.new()
    runs = [looking(dataset) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        told_first = list(pool.map(looks.number, runs))
    assert sorted(told_first) == [1, 2, 3, 4, 5, 6]
    assert [looks.number(run) for run in runs] == told_first
    assert looks.number(looking(dataset, eval_prompt_id="f" * 24)) == 1
    assert looks.number(looking(dataset)) == 7


def played(bench: Bench, toy: Any) -> None:
    for job_id in bench.play(toy.play):
        bench.watch.tell(job_id)


def drive_on(bench: Bench, toy: Any, run_id: str) -> None:
    errand = bench.errand()
    while (run := errand.get(run_id)) is not None:
        errand.step(run)
        played(bench, toy)


def overtaking(storage: Storage, toy: Any, run_id: str) -> None:
    """Another process takes the run over and goes on with it for three steps."""
    rival = Bench(storage, storage, toy)
    errand = rival.errand()
    run = errand.get(run_id)
    assert run is not None
    run = errand.held(run, Lease("rival", CLOCK.now()))
    assert run.progress is not None
    until = run.progress.step + 3
    for _ in range(200):
        errand.step(run)
        played(rival, toy)
        run = errand.get(run_id)
        if run is None or run.progress is None or run.progress.step >= until:
            return
    pytest.fail("the rival makes no steps")


def test_a_process_that_stood_still_overwrites_nothing(storage: Storage) -> None:
    """Before whichever operation of a step a process stands still while another one takes its run over and goes on:
    what it does when it wakes leaves the run's state whole, and the run comes to the end of one never disturbed."""
    toy = new_toy()
    log = Faulty(storage, Plan())
    undisturbed = Bench(log, storage, toy)  # type: ignore[arg-type]
    wanted = told(storage, undisturbed.stepped(begun(undisturbed).id, play=toy.play, most=4000))
    writes = [place for place, name in enumerate(log.log, 1) if name == "run_parts.compare_and_set"]
    step = range(writes[3] - 2, writes[3] + 2)
    assert [log.log[hit - 1] for hit in step] == [
        "run_parts.get_many",
        "runs.get",
        "run_parts.compare_and_set",
        "runs.compare_and_set",
    ]
    for hit in step:
        toy = new_toy()
        plan = Plan(Fault.FREEZE, hit)
        slow = Bench(Faulty(storage, plan), storage, toy)  # type: ignore[arg-type]
        run = begun(slow)
        plan.meanwhile = lambda toy=toy, run=run: overtaking(storage, toy, run.id)
        with pytest.raises(LeaseLost):
            drive_on(slow, toy, run.id)
        after = Bench(storage, storage, toy)
        after.stepped(run.id, play=toy.play, most=4000)
        assert told(storage, run) == wanted, log.log[hit - 1]
