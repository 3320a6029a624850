"""Evaluations whose process dies at any storage operation, whose judge fails, or whose jobs are taken from them."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from engine.evaluation.measures import Measures
from engine.evaluation.values import Measured, Metric, Sample
from engine.jobs.changes import after_event, deleted
from engine.jobs.job import Lease
from engine.jobs.queue import JobQuery, Page
from engine.jobs.states import Event, JobState
from engine.records.evaluations import BLOCK, Contender, Evaluation, EvaluationStatus, cancelled, discarded
from engine.records.runs import OPTIMIZER
from engine.records.store import Storage
from llm_optimizer.evaluating import EvaluationErrand
from llm_optimizer.evaluations import build_evaluations
from tests.support.evaluating import answers, begun, bench, refusing_judge, results_of
from tests.support.factories import CLIENT
from tests.support.faulty import Fault, Faulty, Plan
from tests.support.rig import ScriptedHandler, running_pool
from tests.support.service import one_of_each
from tests.support.waiting import eventually
from utilities.clock import SystemClock

pytestmark = pytest.mark.parametrize("backend", one_of_each(), indirect=True)

CLOCK = SystemClock()
ITEMS = BLOCK + 2
OPERATIONS = 60


def jobs_of(storage: Storage, status: JobState | None = None) -> list[Any]:
    return storage.jobs.find(JobQuery(client_id=CLIENT, status=status), Page(limit=10_000))


def test_every_metric_every_item(storage: Storage) -> None:
    """Each item has the weighted mean of its metrics, 0 where a gate fails, and then no judge is paid for."""
    with bench(storage) as played:
        ended = played.stepped(begun(storage).id)
    assert ended.status is EvaluationStatus.COMPLETED
    results = results_of(storage, ended)
    assert [each["score"] for each in results] == [0.625, 0.375, 0.0, 0.625]
    assert [sorted(each["metrics"]) for each in results] == [
        ["exact", "judge", "short"],
        ["exact", "judge", "short"],
        ["exact", "judge", "short"],
        ["exact", "judge", "short"],
    ]
    assert results[2]["metrics"]["judge"] == {"unscored": "not asked: short has failed, which is a hard gate"}
    [tally] = ended.tallies
    assert (tally.scored, tally.unscored, tally.errors, tally.mean) == (4, 0, 0, pytest.approx(1.625 / 4))
    assert tally.interval is not None
    assert tally.interval.low <= 1.625 / 4 <= tally.interval.high
    assert tally.metrics == {"exact": 0.5, "judge": 0.5, "short": 0.75}
    assert {role: totals.calls for role, totals in ended.spent.items()} == {"work": 4, "eval": 3}
    assert {(job.status, job.metadata.updated_by) for job in jobs_of(storage)} == {(JobState.CONSUMED, OPTIMIZER)}


def test_cells_are_prompts_by_models(storage: Storage) -> None:
    """Every item is answered in each cell, and a cell's mean is of its own."""
    contenders = (Contender(instructions="Answer."), Contender(prompts=("a" * 24,), instructions="Well."))
    with bench(storage) as played:
        ended = played.stepped(begun(storage, 3, contenders=contenders, models=("m", "n")).id)
    assert [(each["item"], each["cell"]) for each in results_of(storage, ended)] == [
        (str(item), cell) for item in range(3) for cell in range(4)
    ]
    assert len({(job.model, job.instructions) for job in jobs_of(storage) if job.model != "judge"}) == 4
    assert [tally.scored for tally in ended.tallies] == [3] * 4


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
def test_a_process_dies_at_any_operation(storage: Storage, fault: Fault) -> None:
    """Whichever operation is the last one of a process: the next one ends the evaluation with the same results, and no
    job is done twice. What is stored before operation n is what is stored after n - 1, so every second one will do."""
    with bench(storage) as played:
        undisturbed = played.stepped(begun(storage, ITEMS).id)
    expected = results_of(storage, undisturbed)
    for hit in range(1, OPERATIONS + 1, 2):
        faulty: Any = Faulty(storage, Plan(fault, hit))
        with bench(faulty, storage) as played:
            ended = played.stepped(begun(storage, ITEMS).id)
        assert results_of(storage, ended) == expected
        assert (ended.tallies, ended.spent) == (undisturbed.tallies, undisturbed.spent)
        if faulty.count < hit:
            assert hit > 10, "hardly anything was hit"
            return
    pytest.fail("an evaluation takes more operations than are hit")


def test_a_judge_that_fails_half_the_time(storage: Storage) -> None:
    """What it does not score is unscored with the reason and in no mean; it is never a 0."""
    with bench(storage) as played:
        ended = played.stepped(begun(storage).id, refusing_judge)
    results = results_of(storage, ended)
    assert [(each["mark"], each["score"]) for each in results] == [
        ("scored", 0.625),
        ("unscored", None),
        ("scored", 0.0),
        ("unscored", None),
    ]
    [tally] = ended.tallies
    assert (tally.scored, tally.unscored, tally.mean) == (2, 2, 0.3125)
    assert "ended in an error" in results[1]["metrics"]["judge"]["unscored"]


@pytest.mark.parametrize("how", ["canceled", "deleted"])
def test_a_job_that_is_taken_away_leaves_its_item_unscored(storage: Storage, how: str) -> None:
    """The evaluation ends all the same, with one item without a score."""
    evaluation = begun(storage)
    with bench(storage) as played:
        played.errand().step(evaluation)
        job = jobs_of(storage)[0]
        now = CLOCK.now()
        changed = deleted(job, now, by="x") if how == "deleted" else after_event(job, Event.CANCEL, now, by="x")
        assert storage.jobs.compare_and_set([changed], now) == [True]
        ended = played.stepped(evaluation.id)
    assert ended.status is EvaluationStatus.COMPLETED
    assert (ended.tallies[0].scored, ended.tallies[0].unscored) == (3, 1)


def test_only_so_many_at_a_time(storage: Storage) -> None:
    """However many items there are, no more calls wait than may be under way."""
    with bench(storage) as played:
        ended = played.stepped(begun(storage, 3 * BLOCK, max_parallel=7).id)
    assert (ended.done, played.most_waiting) == (3 * BLOCK, 7)


class _SlowMeasures(Measures):
    """Every answer takes two seconds of a clock, which it owns."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = _Pushed()
        self.answers = 0

    def measured(self, metrics: Iterable[Metric], sample: Sample) -> list[Measured]:
        self.answers += 1
        self.clock.passed += 2.0
        return super().measured(metrics, sample)


class _Pushed(SystemClock):
    passed = 0.0

    def monotonic(self) -> float:
        return self.passed


def test_slow_metrics_do_not_make_long_steps(storage: Storage) -> None:
    """A step ends after a few seconds of measuring and the next one goes on where it was: nothing is measured twice,
    and no lease lapses meanwhile."""
    evaluation, slow = begun(storage, 12), _SlowMeasures()
    with bench(storage) as played:
        played.errand()
        played.opened.append(replace(played.opened[0], measures=slow, clock=slow.clock))
        errand = EvaluationErrand(played.opened[-1])
        longest = 0
        while (found := errand.get(evaluation.id)) is not None:
            before = slow.answers
            errand.step(found)
            longest = max(longest, slow.answers - before)
            played.play(answers, played.opened[-1])
    assert (slow.answers, longest) == (12, 3)
    assert len(results_of(storage, evaluation_at_its_end(storage, evaluation))) == 12


def evaluation_at_its_end(storage: Storage, evaluation: Evaluation) -> Evaluation:
    ended = storage.evaluations.get(evaluation.id)
    assert ended is not None
    assert ended.status is EvaluationStatus.COMPLETED
    return ended


@pytest.mark.parametrize("change", [cancelled, discarded])
def test_a_cancelled_evaluation_leaves_no_job(storage: Storage, change: Any) -> None:
    """Its queued jobs and those in flight are taken back; a deleted one is gone then."""
    evaluation = begun(storage)
    with bench(storage) as played:
        played.errand().step(evaluation)
        stored = storage.evaluations.get(evaluation.id)
        assert stored is not None
        assert storage.evaluations.compare_and_set(change(stored, CLOCK.now(), by="x"))
        errand = played.errand()
        found = errand.get(evaluation.id)
        assert found is not None
        assert errand.step(found) is None
    assert {job.status for job in jobs_of(storage)} == {JobState.CANCELED}
    left = storage.evaluations.get(evaluation.id)
    assert left is None if change is discarded else left is not None


def test_a_dataset_whose_items_are_gone_fails_it(storage: Storage) -> None:
    """With the reason, instead of hanging."""
    evaluation = begun(storage)
    part = storage.dataset_parts.get(f"{evaluation.items.id}-0")
    assert part is not None
    gone = replace(part, metadata=part.metadata.deleted(CLOCK.now(), "x"))
    assert storage.dataset_parts.compare_and_set(gone)
    with bench(storage) as played:
        ended = played.stepped(evaluation.id)
    assert ended.status is EvaluationStatus.FAILED
    assert "not found" in (ended.failure_reason or "")


def test_another_replica_goes_on(storage: Storage) -> None:
    """The evaluation of a replica that fell silent is driven by another one, with a real pool, when the lease has run
    out; each call is made once."""
    lease = Lease("gone", CLOCK.now() + timedelta(seconds=0.3))
    evaluation = begun(storage, 30, lease=lease, metrics=begun(storage, 1).metrics[:1])
    handler = ScriptedHandler()
    with running_pool(storage, handler) as rig:
        options = {"replica": "here", "lease": timedelta(seconds=30), "poll": 0.1}
        evaluations = build_evaluations(storage, signals=rig.signals, clock=rig.clock, **options)  # type: ignore[arg-type]
        evaluations.start()
        try:
            ended = eventually(lambda: _ended(storage, evaluation), what="the evaluation ended")
        finally:
            evaluations.close()
    assert (ended.status, ended.done) == (EvaluationStatus.COMPLETED, 30)
    own = [job.id for job in jobs_of(storage) if (job.client_reference or {}).get("evaluationId") == evaluation.id]
    assert [handler.calls[job_id] for job_id in own] == [1] * 30


def _ended(storage: Storage, evaluation: Evaluation) -> Evaluation | None:
    found = storage.evaluations.get(evaluation.id)
    return found if found is not None and not found.is_open else None
