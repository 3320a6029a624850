"""Searches beside other work: driven for real, in one process and from another one, with jobs of higher priority."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from engine.jobs.handler import Assignment
from engine.jobs.job import Job
from engine.jobs.outcome import Completed, Outcome
from engine.records.runs import Run, RunStatus
from engine.records.searches import RunBudget, SearchTerms, Verdict
from engine.records.store import Storage
from tests.support.backends import Database
from tests.support.factories import CLIENT, IDS, make_prompt, make_run
from tests.support.optimizing import Driven, call, driven
from tests.support.rig import ScriptedHandler, new_job
from tests.support.service import one_of_each
from tests.support.toy_world import PROMPT, Toy
from tests.support.waiting import eventually
from utilities.clock import SystemClock

pytestmark = pytest.mark.parametrize("backend", one_of_each(), indirect=True)
CLOCK = SystemClock()


class ToyHandler(ScriptedHandler):
    """Plays the toy's models for jobs of runs, and notes in which order jobs come."""

    def __init__(self, toy: Toy) -> None:
        super().__init__()
        self._toy = toy

    async def handle(self, work: Assignment) -> Completed:
        work.guard()
        self.order.append(work.job.operation)
        await asyncio.sleep(0)
        work.record(call("work"))
        if work.job.operation != "optimize":
            return Completed(result={"text": "done"})
        outcome = self._toy.play(work.job)
        assert isinstance(outcome, Completed)
        return outcome


@contextmanager
def searching(storage: Storage, toy: Toy, replica: str = "here") -> Iterator[tuple[Driven, ToyHandler]]:
    handler = ToyHandler(toy)
    with driven(storage, handler, subjects=toy, replica=replica) as process:
        yield process, handler


def begin(storage: Storage, process: Driven, calls: int = 300) -> Run:
    prompt = make_prompt(text=PROMPT, name=f"searched-{IDS.new()}")
    storage.prompts.add(prompt)
    terms = SearchTerms(dataset_id="d", budget=RunBudget(calls=calls), max_parallel=8)
    metadata = replace(make_run().metadata, created_at=CLOCK.now())
    return process.begin(search=terms, initial_prompt_ids=(prompt.id,), metadata=metadata)


def ended(storage: Storage, run: Run) -> Run:
    def found() -> Run | None:
        stored = storage.runs.get(run.id)
        return stored if stored is not None and not stored.is_open else None

    return eventually(found, within=60, what="the run ended")


def test_two_searches_and_their_neighbours(database: Database) -> None:
    """Two runs go on side by side in one process, and jobs of a higher priority that come in between go first: no more
    rollouts come between them than were in flight already."""
    storage, toy = database.open(), Toy(examples=60)
    with searching(storage, toy) as (process, handler):
        runs = [begin(storage, process), begin(storage, process)]
        eventually(lambda: len(handler.order) > 20, what="the searches are under way")
        mine = [new_job(CLOCK, CLIENT, operation="production", priority=5) for _ in range(200)]
        process.rig.post(mine)
        at = len(handler.order)
        process.rig.wait(within=60)
        done = [ended(storage, run) for run in runs]
    assert {run.status for run in done} == {RunStatus.COMPLETED}
    assert {run.progress.verdict for run in done if run.progress is not None} <= set(Verdict)
    order = handler.order[at:]
    last = max(place for place, operation in enumerate(order) if operation == "production")
    assert order[: last + 1].count("optimize") <= 40


def test_a_search_goes_on_elsewhere(database: Database) -> None:
    """A run whose process closes in its middle is taken over by another one, which asks nothing a second time."""
    storage, toy = database.open(), Toy(examples=60)
    seen: list[str] = []
    lock = threading.Lock()
    play = toy.play

    def once(job: Job) -> Outcome:
        with lock:
            assert job.id not in seen
            seen.append(job.id)
        return play(job)

    toy.play = once  # type: ignore[method-assign]
    with searching(storage, toy, "first") as (process, handler):
        run = begin(storage, process)
        eventually(lambda: len(handler.order) > 20, what="the search is under way")
    with searching(database.open(), toy, "first"):
        done = ended(storage, run)
    assert done.status is RunStatus.COMPLETED
    assert done.totals.calls == len(seen)
