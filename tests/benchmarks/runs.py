"""Optimization runs: how soon the next step follows, what a rollout costs beside a plain job, and whether as many run
as may. A pool and an optimizer in this process, on a database as the service opens it; the models are played."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from statistics import median

from engine.jobs.handler import Assignment
from engine.jobs.job import Job
from engine.jobs.outcome import Completed
from engine.jobs.queue import JobQuery, Page
from engine.metadata import Metadata
from engine.records.runs import Run
from engine.records.searches import RunBudget, SearchTerms
from engine.records.store import Storage
from engine.storage.factory import open_storage
from llm_optimizer.assembly import build_optimizer
from tests.benchmarks.stage import BACKENDS, LABEL, Stage, wait_until
from tests.benchmarks.table import Row, at_least, at_most, number, percentile
from tests.support.factories import CLIENT, make_prompt, make_run
from tests.support.optimizing import Driven, SuggestingHandler, call
from tests.support.rig import ScriptedHandler, new_job, new_worker, running_pool
from tests.support.toy_world import PROMPT, Toy
from utilities.clock import SystemClock
from utilities.ids import ObjectIds

PARALLEL = 200
LATENCY = 0.5
CLOCK = SystemClock()


class ToyHandler(ScriptedHandler):
    """Plays the toy's models, whose calls take `latency` seconds, half of it more or less; notes how many are in
    flight when."""

    def __init__(self, toy: Toy, latency: float) -> None:
        super().__init__()
        self._toy = toy
        self._latency = latency
        self._in_flight = 0
        self.levels: list[tuple[float, int]] = []

    async def handle(self, work: Assignment) -> Completed:
        work.guard()
        self._note(1)
        outcome = self._toy.play(work.job) if work.job.operation == "optimize" else Completed(result={"text": "a"})
        await asyncio.sleep(self._latency * (0.5 + int(work.job.id[-4:], 16) / 0xFFFF))
        self._note(-1)
        work.record(call("work"))
        assert isinstance(outcome, Completed)
        return outcome

    def _note(self, change: int) -> None:
        self._in_flight += change
        self.levels.append((time.monotonic(), self._in_flight))


def runs(stage: Stage) -> Iterator[Row]:
    """From a run's result to its next step; CPU per rollout over a plain job; 200 rollouts at a time."""
    for backend in BACKENDS:
        yield _next_iteration(stage, backend)
        yield from _searches(stage, backend)


@contextmanager
def _process(stage: Stage, backend: str, handler: ScriptedHandler, toy: Toy | None = None) -> Iterator[Driven]:
    with stage.database(backend) as (database, _folder):
        storage = open_storage(database.url, database=database.name)
        worker = new_worker(CLOCK, capacity=PARALLEL + 20)
        storage.workers.add(worker)
        try:
            with running_pool(storage, handler, worker=worker) as rig:
                optimizer = build_optimizer(
                    storage, signals=rig.signals, clock=CLOCK, ids=ObjectIds(), replica="here", subjects=toy
                )
                optimizer.start()
                yield Driven(rig, optimizer)
                optimizer.close()
        finally:
            storage.close()


def _next_iteration(stage: Stage, backend: str) -> Row:
    iterations = stage.size(100, 10)
    with _process(stage, backend, SuggestingHandler()) as process:
        run = process.begin(max_iterations=iterations, working_models=("m",), metadata=_now())
        ended = _ended(process.rig.storage, run)
        jobs = _jobs(process.rig.storage)
        assert len(ended.model_runs[0].iterations) == iterations
    pauses = [_between([before], [after]) * 1000 for before, after in pairwise(jobs)]
    return Row(
        name=f"from a result to the next iteration's job, {LABEL[backend]}",
        measured=median(pauses),
        unit="ms",
        goal=at_most(100),
        note=f"p99 {number(percentile(pauses, 0.99))}; {iterations} iterations",
    )


def _searches(stage: Stage, backend: str) -> Iterator[Row]:
    examples = stage.size(2000, 120)
    toy, plain = Toy(examples=examples), stage.size(2000, 100)
    handler = ToyHandler(toy, LATENCY if not stage.quick else 0.01)
    with _process(stage, backend, handler, toy) as process:
        per_plain = _cpu_per_plain_job(process, plain)
        handler.levels.clear()
        started = time.process_time()
        run = _begin(process, examples * 4 // 10)
        _ended(process.rig.storage, run)
        rollouts = sum(toy.calls.values())
        per_rollout = (time.process_time() - started) * 1000 / rollouts
        jobs = [job for job in _jobs(process.rig.storage) if job.operation == "optimize"]
    steps = _by_step(jobs)
    pauses = [_between(before, after) * 1000 for before, after in pairwise(steps)]
    yield Row(
        name=f"from a step's last result to the next step's first job, {LABEL[backend]}",
        measured=median(pauses),
        unit="ms",
        goal=at_most(100),
        note=f"p90 {number(percentile(pauses, 0.9))}; {len(steps)} steps, {rollouts} calls",
    )
    yield Row(
        name=f"CPU of a rollout, its strategy included, {LABEL[backend]}",
        measured=per_rollout,
        unit="ms",
        baseline=per_plain,
        note="baseline: a plain job through the same pool, the process's CPU alone",
    )
    yield Row(
        name=f"rollouts in flight, of {PARALLEL} that may be, {LABEL[backend]}",
        measured=_mean_level(handler.levels, len(steps[-1])),
        unit="rollouts",
        goal=None if stage.quick else at_least(0.9 * PARALLEL),
        note=f"in a plan of {len(steps[-1])}, while it is full; calls of {number(LATENCY)} s, half of it more or less",
    )


def _begin(process: Driven, holdout: int) -> Run:
    prompt = make_prompt(text=PROMPT)
    process.rig.storage.prompts.add(prompt)
    terms = SearchTerms(dataset_id="toy", budget=RunBudget(calls=20 * holdout), holdout=holdout, max_parallel=PARALLEL)
    return process.begin(search=terms, initial_prompt_ids=(prompt.id,), metadata=_now())


def _cpu_per_plain_job(process: Driven, count: int) -> float:
    """Milliseconds."""
    started = time.process_time()
    process.rig.post([new_job(CLOCK, CLIENT) for _ in range(count)])
    process.rig.wait(within=300)
    return (time.process_time() - started) * 1000 / count


def _now() -> Metadata:
    return replace(make_run().metadata, created_at=CLOCK.now())


def _ended(storage: Storage, run: Run) -> Run:
    def done() -> bool:
        found = storage.runs.get(run.id)
        return found is not None and not found.is_open

    wait_until(done, within=600, what="the run's end")
    found = storage.runs.get(run.id)
    assert found is not None
    return found


def _jobs(storage: Storage) -> list[Job]:
    return storage.jobs.find(JobQuery(client_id=CLIENT), Page(limit=100_000))


def _by_step(jobs: Sequence[Job]) -> list[list[Job]]:
    steps: dict[int, list[Job]] = {}
    for job in jobs:
        steps.setdefault(int((job.client_reference or {})["step"]), []).append(job)
    return [steps[step] for step in sorted(steps)]


def _between(before: Sequence[Job], after: Sequence[Job]) -> float:
    """Seconds from the last end of `before` to the first job of `after`."""
    last = max(job.ledger[-1].ended_at or CLOCK.now() for job in before)
    return (min(job.metadata.created_at for job in after) - last).total_seconds()


def _mean_level(levels: Sequence[tuple[float, int]], calls: int) -> float:
    """Of the last `calls`, weighted by time, from when their number was highest first to the last of their starts."""
    own = levels[-2 * calls :]
    counted = Counter(level for _, level in own)
    full = next(place for place, (_, level) in enumerate(own) if level >= 0.95 * max(counted))
    last = max(place for place in range(1, len(own)) if own[place][1] > own[place - 1][1])
    area = sum(own[place][1] * (own[place + 1][0] - own[place][0]) for place in range(full, last))
    return area / max(own[last][0] - own[full][0], 1e-9)
