"""Searches beside other work: driven for real, in one process and from another one, with jobs of higher priority."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from engine.jobs.handler import Assignment
from engine.jobs.job import Job
from engine.jobs.outcome import Completed, Outcome
from engine.jobs.states import JobState
from engine.records.runs import Run, RunStatus
from engine.records.searches import RunBudget, SearchTerms, Verdict
from engine.records.store import Storage
from engine.records.values import Limits
from llm_optimizer.evaluations import build_evaluations
from llm_workers.capacity import Window
from llm_workers.lane_terms import LaneTerms
from tests.support.backends import Database
from tests.support.evaluating import METRICS, begun
from tests.support.factories import CLIENT, IDS, make_prompt, make_run
from tests.support.fake_provider.meter import TOKENS, Meter
from tests.support.optimizing import Driven, call, driven
from tests.support.plant import Plant, plant
from tests.support.rig import ScriptedHandler, new_job
from tests.support.service import one_of_each
from tests.support.toy_world import PROMPT, Toy
from tests.support.waiting import eventually
from utilities.clock import SystemClock

both = pytest.mark.parametrize("backend", one_of_each(), indirect=True)
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


@both
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


@both
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


PRODUCTION = 1_000
ROLLOUTS = 5_000
AT_ONCE = 50
SECONDS = 1.0
LIMIT = 800
"""Calls that the provider takes in so many seconds: what the jobs below wait for most of their time."""
SLACK = 3.0
"""How late a call may come without being one too many: busy machines hold threads up, and limits are not the point."""


def produced(made: Plant) -> list[str]:
    """For whom the provider was called from when 1,000 jobs were in the queue until they were done, in order."""
    jobs = made.post(PRODUCTION, priority=5)
    before = made.fake.seen.total
    assert {job.status for job in made.wait(jobs, within=60)} == {JobState.PROCESSED}
    mine = {job.id for job in jobs}
    ids = [call.attempt_id.partition("-")[0] for call in made.fake.seen.calls]
    return ["production" if one in mine else "rollout" for one in ids[before:]]


@pytest.mark.parametrize("backend", one_of_each()[:1], indirect=True)
def test_a_thousand_jobs_at_a_providers_limit(database: Database) -> None:
    """Jobs of higher priority go first at a provider that is used to its limit: beside rollouts that keep it full they
    give up no more of its turns than to those in flight."""
    with plant(database, terms=LaneTerms(window=Window(SECONDS, slack=SLACK))) as made:
        meter = Meter(requests=LIMIT, tokens=LIMIT * TOKENS, seconds=SECONDS, penalty=1.0)
        made.fake.script.limit("m", meter)
        made.model(limits=Limits(requests_per_minute=LIMIT))
        made.employ(capacity=AT_ONCE)
        assert set(produced(made)) == {"production"}
        evaluations = build_evaluations(
            made.storage,
            signals=made.replicas[0].signals,
            clock=made.clock,
            replica="here",
            lease=timedelta(seconds=30),
            poll=0.2,
        )
        evaluations.start()
        try:
            begun(made.storage, ROLLOUTS, metrics=METRICS[:1], max_parallel=2 * AT_ONCE)
            made.fake.seen.wait_until(lambda seen: seen.total > PRODUCTION + LIMIT // 2, timeout=30)
            turns = produced(made)
        finally:
            evaluations.close()
        assert meter.refused == []
    assert turns.count("rollout") <= 2 * AT_ONCE
