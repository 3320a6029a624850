"""Runs that search over a dataset: killed anywhere, short of money, held up, misjudged."""

from dataclasses import replace
from typing import Any

import pytest

from engine.jobs.queue import JobQuery
from engine.jobs.states import JobState
from engine.records.runs import Run, RunStatus
from engine.records.searches import Promotion, RunBudget, SearchTerms
from engine.records.store import Storage
from llm_optimizer.search_store import StateStore
from tests.support.backends import SQLITE
from tests.support.factories import CLIENT, IDS, make_prompt, make_run
from tests.support.faulty import Fault, Faulty, Plan
from tests.support.optimizing import Bench
from tests.support.service import one_of_each
from tests.support.toy_world import PROMPT, Toy
from utilities.clock import SystemClock

CLOCK = SystemClock()
APART = {SQLITE: 11, "mongo": 41, "mongo-replica": 41}
"""Every so many operations one is hit; on MongoDB a run takes longer."""


def begun(bench: Bench, **terms: Any) -> Run:
    """A run whose first step is still to be made, with a dataset of its own: nobody has looked at its holdout."""
    prompt = make_prompt(text=PROMPT, name=f"searched-{IDS.new()}")
    bench.truth.prompts.add(prompt)
    values = {"dataset_id": f"d-{IDS.new()}", "budget": RunBudget(calls=120), "promote": Promotion.WHEN_PROVEN, **terms}
    new = make_run(initial_prompt_ids=(prompt.id,), search=SearchTerms(**values))
    new = replace(new, metadata=replace(new.metadata, created_at=CLOCK.now()))
    run = Bench(bench.truth, bench.truth, bench.subjects).searching().begun(new)
    bench.truth.runs.add(run)
    return run


def told(storage: Storage, run: Run) -> dict[str, Any]:
    """All that a run has found, and what it has spent."""
    found = storage.runs.get(run.id)
    assert found is not None
    assert found.progress is not None
    assert found.progress.at is not None
    state = StateStore(storage.run_parts, CLOCK).read(run.id, found.progress.at)
    winner = storage.prompts.get(found.progress.winner_id or "")
    spent = {role: (totals.calls, totals.input_cost) for role, totals in found.spent.items()}
    return {
        "status": found.status,
        "state": state,
        "spent": spent,
        "verdict": found.progress.verdict,
        "numbers": found.progress.numbers,
        "winner": None if winner is None else winner.text,
    }


def jobs_of(storage: Storage, status: JobState | None = None) -> int:
    return storage.jobs.count(JobQuery(client_id=CLIENT, status=status))


def new_toy() -> Toy:
    return Toy(examples=30, judged=True)


@pytest.fixture(params=one_of_each())
def backend(request: pytest.FixtureRequest) -> str:
    """SQLite and one MongoDB."""
    return str(request.param)


def test_a_process_dies_at_any_operation(storage: Storage, backend: str) -> None:
    """Whichever storage operation is the last one of a process, done or not: the next process comes to the same
    candidates, scores, costs and verdict, and no job runs twice."""
    toy = new_toy()
    undisturbed = Bench(storage, storage, toy)
    run = undisturbed.stepped(begun(undisturbed).id, play=toy.play, most=4000)
    wanted, calls = told(storage, run), toy.calls
    assert run.status is RunStatus.COMPLETED
    hit, step = 1, APART[backend]
    while True:
        toy = new_toy()
        faulty = Faulty(storage, Plan((Fault.BEFORE, Fault.AFTER)[hit % 2], hit))
        bench = Bench(faulty, storage, toy)  # type: ignore[arg-type]
        again = begun(bench)
        bench.stepped(again.id, play=toy.play, most=4000)
        assert told(storage, again) == wanted, f"operation {hit}, {faulty.log[hit - 1]}"
        assert toy.calls == calls
        if faulty.count < hit:
            break
        hit += step
    assert hit > 200, "hardly anything was hit"


def test_all_that_is_checked_and_proven_is_taken_over(storage: Storage) -> None:
    """The look for headroom, judgements that are repeated, weights, looks at the holdout: a run that is taken over
    before each of its steps makes the same of them."""
    ends = []
    for restarts in (False, True):
        toy = Toy(judged=True, wavering=0.2, weights={"delta": 3.0}, prompt="Answer. alpha beta gamma")
        bench = Bench(storage, storage, toy)
        run = begun(bench, budget=RunBudget(calls=1_800))
        bench.stepped(run.id, play=toy.play, most=6000, restarts=restarts)
        ends.append(told(storage, run))
    assert ends[0] == ends[1]
    numbers = ends[0]["numbers"]
    assert numbers["headroom"]["examples"] == 10
    assert (numbers["test"]["judgements"], numbers["test"]["looks"], numbers["weighted"]) == (2, 1, True)


def test_a_new_process_for_every_step(storage: Storage) -> None:
    """A run that is taken over before each of its steps comes to the same end as one that one process drives."""
    ends = []
    for restarts in (False, True):
        toy = new_toy()
        bench = Bench(storage, storage, toy)
        run = begun(bench)
        bench.stepped(run.id, play=toy.play, most=4000, restarts=restarts)
        ends.append(told(storage, run))
        assert jobs_of(storage, JobState.PENDING) == jobs_of(storage, JobState.PROCESSED) == 0
    assert ends[0] == ends[1]
