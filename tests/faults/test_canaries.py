"""Canaries whose process dies at any storage operation, whose answers fail, or whose jobs are taken from them."""

from dataclasses import replace
from typing import Any

import pytest

from engine.jobs.changes import deleted
from engine.jobs.job import Job
from engine.jobs.outcome import Completed, DeadLettered, Outcome
from engine.jobs.queue import JobQuery, Page
from engine.jobs.states import JobState
from engine.records.canaries import LOOKS, OPERATION, CanaryStatus
from engine.records.store import Storage
from tests.support.canaries import CLOCK, OWN, TRIED, alike, bench, says, tried, worse
from tests.support.factories import CLIENT, make_failure
from tests.support.faulty import Fault, Faulty, Plan
from tests.support.service import one_of_each

pytestmark = pytest.mark.parametrize("backend", one_of_each(), indirect=True)

JOBS = LOOKS[0] + 3
OPERATIONS = 40


def jobs_of(storage: Storage, **query: Any) -> list[Job]:
    return storage.jobs.find(JobQuery(client_id=CLIENT, **query), Page(limit=10_000))


def test_a_worse_canary_is_rolled_back(storage: Storage) -> None:
    """At the first look its share is gone, with the numbers; its own jobs stay as they were, and all others are used
    up, of low priority and with the flow's own prompts."""
    flow = tried(storage, JOBS)
    with bench(storage) as played:
        ended = played.stepped(flow.id, worse)
    [canary] = ended.canaries
    assert (canary.status, ended.shares, ended.canary_open, ended.lease) == (CanaryStatus.ROLLED_BACK, {}, False, None)
    assert canary.finding is not None
    assert (canary.finding.pairs, canary.finding.mean, canary.looks) == (LOOKS[0], -0.75, 1)
    assert canary.finding.worse < 0.05 / len(LOOKS)
    assert canary.ended_at is not None
    assert ended.metadata.updated_by == "optimizer"
    shadows = [job for job in jobs_of(storage, operation=OPERATION) if (job.client_reference or {})["role"] == "work"]
    assert {job.working_prompts for job in shadows} == {flow.prompt_ids}
    assert {job.request_data["n"] for job in shadows} == set(range(JOBS))
    assert {(job.status, job.priority) for job in jobs_of(storage, operation=OPERATION)} == {(JobState.CONSUMED, 1000)}
    assert {job.status for job in jobs_of(storage, operation="summarize")} == {JobState.PROCESSED}


def test_an_equal_canary_stays(storage: Storage) -> None:
    """After the last look it is said not to be worse, and keeps its share; nothing more is scored."""
    flow = tried(storage, LOOKS[-1] + 10)
    with bench(storage) as played:
        ended = played.stepped(flow.id, alike)
    [canary] = ended.canaries
    assert (canary.status, canary.looks, ended.shares) == (CanaryStatus.NOT_WORSE, len(LOOKS), {TRIED: 0.5})
    assert len(canary.differences) >= LOOKS[-1]
    assert not ended.canary_open


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
def test_a_process_dies_at_any_operation(storage: Storage, fault: Fault) -> None:
    """Whichever operation is the last one of a process: the next one ends with the same pairs, none twice and none
    lost, and no job is done twice. What is stored before operation n is what is stored after n - 1, so every second one
    will do."""
    with bench(storage) as played:
        [undisturbed] = played.stepped(tried(storage, JOBS).id, worse).canaries
    for hit in range(1, OPERATIONS, 2):
        faulty: Any = Faulty(storage, Plan(fault, hit))
        flow = tried(storage, JOBS)
        with bench(faulty, storage) as played:
            [canary] = played.stepped(flow.id, worse).canaries
        sampled = [job.id for job in jobs_of(storage) if job.canary_trial == canary.id]
        assert [pair.job_id for pair in canary.pairs] == sampled
        assert canary.differences == undisturbed.differences
        assert (canary.status, canary.looks) == (CanaryStatus.ROLLED_BACK, 1)
        if faulty.count < hit:
            assert hit > 10, "hardly anything was hit"
            return
    pytest.fail("a canary takes more operations than are hit")


def test_an_unusable_answer_scores_0_and_an_outage_nothing(storage: Storage) -> None:
    """A canary whose answer cannot be used is worse by the whole score; where the provider failed there is no pair.
    What is answered in JSON is scored as its text."""

    def play(job: Job) -> Outcome:
        if TRIED in job.working_prompts:
            reason = "AnswerMisfits" if job.request_data["n"] % 2 else "ProviderTimeout"
            return DeadLettered(make_failure(error_type=reason))
        is_judge = (job.client_reference or {})["role"] == "eval"
        return says(job, "") if is_judge else Completed(result={"some": "JSON"})

    flow = tried(storage, 6)
    with bench(storage) as played:
        [canary] = played.stepped(flow.id, play).canaries
    assert sorted(map(str, (pair.difference for pair in canary.pairs))) == ["-0.125"] * 3 + ["None"] * 3
    assert canary.status is CanaryStatus.RUNNING


def test_jobs_that_are_taken_away_give_no_pair(storage: Storage) -> None:
    """A shadow or a judge's job that somebody deletes costs that pair alone."""
    flow = tried(storage, 4)
    with bench(storage) as played:
        played.play(worse)
        played.errand().step(flow)
        [first, *_] = [job for job in jobs_of(storage, operation=OPERATION) if OWN in job.working_prompts]
        now = CLOCK.now()
        assert storage.jobs.compare_and_set([deleted(first, now, by="x")], now) == [True]
        [canary] = played.stepped(flow.id, worse).canaries
    differences = [pair.difference for pair in canary.pairs]
    assert sorted(differences, key=str) == [-0.75, -0.75, -0.75, None]


@pytest.mark.parametrize("ended_by", ["a client", "its evaluator", "a delete"])
def test_what_is_queued_for_a_canary_ends_with_it(storage: Storage, ended_by: str) -> None:
    """Whoever ends a canary, calls that wait for it are withdrawn: nobody needs their answers any more. Those of a
    canary that goes on beside it stay."""
    flow, other = tried(storage, LOOKS[0]), tried(storage, 3)
    with bench(storage) as played:
        played.play(worse)
        errand = played.errand()
        for each in (flow, other):
            errand.step(each)
        queued = jobs_of(storage, operation=OPERATION, status=JobState.PENDING)
        assert len(queued) == LOOKS[0] + 3
        stored = storage.prompt_flows.get(flow.id)
        assert stored is not None
        if ended_by == "its evaluator":
            found = storage.evaluators.get(flow.canary_evaluator or "")
            assert found is not None
            storage.evaluators.compare_and_set(replace(found, metadata=found.metadata.deleted(CLOCK.now(), "x")))
            assert errand.step(stored) is None
        elif ended_by == "a delete":
            storage.prompt_flows.compare_and_set(replace(stored, metadata=stored.metadata.deleted(CLOCK.now(), "x")))
            assert errand.get(flow.id) is None
        else:
            storage.prompt_flows.compare_and_set(replace(stored, canaries=()))
            assert errand.get(flow.id) is None
        errand.step(other)
    left = jobs_of(storage, operation=OPERATION, status=JobState.PENDING)
    assert {(job.client_reference or {})["promptFlowId"] for job in left} == {other.id}
    assert len(left) == 3
