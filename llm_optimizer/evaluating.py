"""What is done for an evaluation: implements engine.driving.Errand.

Its units are begun in their order, at most so many at a time, and their results are stored block by block. What was
asked beyond the last stored block only the queue knows, which is enough: a call that was made is found by its id.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from engine.errors import Duplicate, LeaseLost, NotFound, StorageCorrupt
from engine.evaluation.measures import Measures
from engine.evaluation.statistics import weighted_interval
from engine.jobs.job import Job, Lease, Totals
from engine.jobs.queue import JobQueue, Page
from engine.jobs.references import reference_text
from engine.metadata import Metadata
from engine.records.dataset_items import DatasetItems
from engine.records.evaluation_results import EvaluationResults
from engine.records.evaluations import (
    BLOCK,
    Evaluation,
    EvaluationPart,
    EvaluationStatus,
    ItemResult,
    Tally,
    advanced,
    part_id,
    withdrawn,
)
from engine.records.runs import OPTIMIZER, Withdrawal, sum_of
from engine.records.store import RecordStore, Where
from llm_optimizer.rollouts import RolloutSpec, is_awaited, job_of
from llm_optimizer.run_tools import Watch
from llm_optimizer.units import Unit, owner_of
from llm_optimizer.withdrawal import OwnJobs
from utilities.clock import Clock

_MOST_EVALUATIONS = 10_000
_SOONEST_SECONDS = 0.1
_LATEST_SECONDS = 2.0
_STEP_SECONDS = 5.0
"""After which a step leaves further answers to the next one: its lease is short, and others wait."""

_SHARE = 0.1
"""Jobs that other replicas work on are asked for after a tenth of the time since the last result."""


@dataclass(slots=True, kw_only=True)
class _Open:
    """An evaluation that is driven here: units by their places from `done` on, and what is known of their jobs."""

    done: int
    units: dict[int, Unit] = field(default_factory=dict)
    jobs: dict[str, Job | None] = field(default_factory=dict)
    results: dict[int, ItemResult] = field(default_factory=dict)
    changed: float = 0.0
    refreshed: float = 0.0
    until: float = math.inf

    @property
    def awaited(self) -> list[str]:
        return [job_id for job_id, job in self.jobs.items() if job is not None and is_awaited(job)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationTools:
    """What steps are taken with."""

    evaluations: RecordStore[Evaluation]
    parts: RecordStore[EvaluationPart]
    items: DatasetItems
    queue: JobQueue
    jobs: OwnJobs
    measures: Measures
    clock: Clock
    watch: Watch

    def write(self, evaluation: Evaluation) -> Evaluation:
        """Stores it by its revision. Raises LeaseLost where somebody has changed it."""
        if not self.evaluations.compare_and_set(evaluation):
            raise LeaseLost(f"evaluation {evaluation.id} was changed meanwhile")
        return replace(evaluation, revision=evaluation.revision + 1)


class EvaluationErrand:
    """For the driver's threads; one evaluation by one of them at a time."""

    def __init__(self, tools: EvaluationTools) -> None:
        self._tools = tools
        self._open: dict[str, _Open] = {}

    def unfinished(self) -> Sequence[Evaluation]:
        return self._tools.evaluations.find(Where(equals={"open": [True]}), Page(limit=_MOST_EVALUATIONS))

    def get(self, record_id: str) -> Evaluation | None:
        found = self._tools.evaluations.get(record_id)
        if found is None or not found.is_open:
            self._forget(record_id)
            return None
        return found

    def held(self, record: Evaluation, lease: Lease | None) -> Evaluation:
        return self._tools.write(replace(record, lease=lease))

    def step(self, record: Evaluation) -> float | None:
        """An evaluation whose dataset's items are gone fails with the reason."""
        try:
            if not record.withdrawal:
                return self._go_on(record)
            self._withdraw(record)
        except (NotFound, StorageCorrupt) as error:
            self._forget(record.id)
            ended = replace(record, status=EvaluationStatus.FAILED, failure_reason=str(error), withdrawal=True)
            self._tools.write(ended)
            return 0.0
        except BaseException:
            self._forget(record.id)
            raise
        return None

    def _withdraw(self, evaluation: Evaluation) -> None:
        tools, now = self._tools, self._tools.clock.now()
        reference = reference_text("evaluationId", evaluation.id)
        tools.jobs.withdraw_of(evaluation.client_id, reference, Withdrawal.ALL, now)
        tools.jobs.consume_of(evaluation.client_id, reference, now)
        self._forget(evaluation.id)
        tools.write(withdrawn(evaluation, now))

    def _go_on(self, evaluation: Evaluation) -> float | None:
        it = self._opened(evaluation)
        self._look(it, evaluation)
        it.until = self._tools.clock.monotonic() + _STEP_SECONDS
        self._ask(it, evaluation)
        before = evaluation.done
        while evaluation.done < evaluation.units:
            block = self._block(it, evaluation)
            if block is None:
                break
            evaluation = self._stored(it, evaluation, block)
        if evaluation.done == evaluation.units:
            self._tools.write(self._ended(evaluation))
            self._forget(evaluation.id)
            return None
        return 0.0 if evaluation.done > before or self._is_late(it) else self._patience(it)

    def _opened(self, evaluation: Evaluation) -> _Open:
        """As it was left here, or what the queue knows of the units that are begun next."""
        it = self._open.get(evaluation.id)
        if it is None or it.done != evaluation.done:
            moment = self._tools.clock.monotonic()
            it = self._open[evaluation.id] = _Open(done=evaluation.done, changed=moment, refreshed=moment)
        self._read_on(it, evaluation)
        return it

    def _read_on(self, it: _Open, evaluation: Evaluation) -> None:
        """Units for two blocks, and for twice as many calls as may be made at a time."""
        first = max(it.units, default=evaluation.done - 1) + 1
        last = min(evaluation.done + 2 * BLOCK + 2 * evaluation.max_parallel, evaluation.units)
        if first >= last or (last - first < BLOCK and first > evaluation.done and last < evaluation.units):
            return
        cells, tools = evaluation.cells, self._tools
        begin = first // cells
        items = tools.items.slice(evaluation.items, begin, (last - 1) // cells - begin + 1)
        for place in range(first, last):
            item = items[place // cells - begin]
            it.units[place] = Unit(evaluation=evaluation, item=item, cell=place % cells, measures=tools.measures)
        self._learn(it, evaluation, [it.units[place].work_id for place in range(first, last)], only_found=True)

    def _look(self, it: _Open, evaluation: Evaluation) -> None:
        """At the jobs that were told to have ended, now and then at all that are awaited."""
        moment = self._tools.clock.monotonic()
        told = [job_id for job_id in self._tools.watch.taken(evaluation.id) if job_id in it.jobs]
        if moment - it.refreshed >= self._patience(it):
            it.refreshed, told = moment, it.awaited
        if told:
            self._learn(it, evaluation, told)

    def _learn(self, it: _Open, evaluation: Evaluation, ids: Sequence[str], *, only_found: bool = False) -> None:
        found = self._tools.queue.get_many(ids)
        it.jobs |= found if only_found else {job_id: found.get(job_id) for job_id in ids}
        waiting = [job_id for job_id in ids if job_id in it.jobs and _awaited(it.jobs[job_id])]
        ended = [job_id for job_id in ids if job_id not in waiting]
        self._tools.watch.add(waiting, evaluation.id)
        self._tools.watch.remove(ended)
        if ended and not only_found:
            it.changed = self._tools.clock.monotonic()

    def _ask(self, it: _Open, evaluation: Evaluation) -> None:
        """Makes the next calls until as many as may be are under way; what is there already may have ended."""
        while True:
            room = evaluation.max_parallel - len(it.awaited)
            wanted: dict[str, RolloutSpec] = {}
            for place, unit in it.units.items():
                if len(wanted) >= room or self._is_late(it):
                    break
                if place not in it.results:
                    wanted |= self._looked_at(it, place, unit)
            if not wanted or room <= 0:
                return
            self._insert(it, evaluation, dict(list(wanted.items())[:room]))

    def _looked_at(self, it: _Open, place: int, unit: Unit) -> dict[str, RolloutSpec]:
        """What a unit needs next; its result is kept where that is nothing."""
        wanted = unit.wanted(it.jobs)
        result = None if wanted else unit.result(it.jobs)
        if result is not None:
            it.results[place] = result
        return wanted

    def _insert(self, it: _Open, evaluation: Evaluation, wanted: Mapping[str, RolloutSpec]) -> None:
        owner, now = owner_of(evaluation), self._tools.clock.now()
        self._tools.watch.add(list(wanted), evaluation.id)
        self._tools.jobs.insert([job_of(owner, spec, now) for spec in wanted.values()])
        self._learn(it, evaluation, list(wanted))

    def _block(self, it: _Open, evaluation: Evaluation) -> list[int] | None:
        """The places of the next block, once all of it has results."""
        places = list(range(evaluation.done, min(evaluation.done + BLOCK, evaluation.units)))
        for place in places:
            if place not in it.results:
                if place not in it.units or self._is_late(it):
                    return None
                self._looked_at(it, place, it.units[place])
            if place not in it.results:
                return None
        return places

    def _stored(self, it: _Open, evaluation: Evaluation, places: Sequence[int]) -> Evaluation:
        """The part first, then the head that counts it. Consuming a result twice changes nothing."""
        tools, now = self._tools, self._tools.clock.now()
        results = [it.results[place] for place in places]
        units = [it.units[place] for place in places]
        part = EvaluationPart(
            id=part_id(evaluation.id, evaluation.done // BLOCK),
            evaluation_id=evaluation.id,
            results=tuple(results),
            metadata=Metadata(created_at=now, created_by=OPTIMIZER),
        )
        with suppress(Duplicate):  # stored by whoever died before the head was: the same jobs have the same results
            tools.parts.add(part)
        known = [it.jobs[job_id] for unit in units for job_id in unit.job_ids]
        if not tools.jobs.consume([job for job in known if job is not None], now):
            self._forget(evaluation.id)
            raise LeaseLost(f"jobs of evaluation {evaluation.id} were changed meanwhile")
        written = tools.write(advanced(evaluation, results, _together([unit.spent(it.jobs) for unit in units])))
        for place, unit in zip(places, units, strict=True):
            del it.units[place], it.results[place]
            for job_id in unit.job_ids:
                it.jobs.pop(job_id, None)
        it.done = written.done
        return written

    def _ended(self, evaluation: Evaluation) -> Evaluation:
        """With means and intervals of everything that is stored."""
        results = EvaluationResults(self._tools.parts).all(evaluation)
        tallies = tuple(
            summed(tally, [each for each in results if each.cell == cell], f"{evaluation.seed}/{cell}")
            for cell, tally in enumerate(evaluation.tallies)
        )
        metadata = evaluation.metadata.touched(self._tools.clock.now(), OPTIMIZER)
        return replace(evaluation, status=EvaluationStatus.COMPLETED, tallies=tallies, lease=None, metadata=metadata)

    def _is_late(self, it: _Open) -> bool:
        return self._tools.clock.monotonic() >= it.until

    def _patience(self, it: _Open) -> float:
        waited = (self._tools.clock.monotonic() - it.changed) * _SHARE
        return min(max(waited, _SOONEST_SECONDS), _LATEST_SECONDS)

    def _forget(self, evaluation_id: str) -> None:
        self._open.pop(evaluation_id, None)
        self._tools.watch.forget(evaluation_id)


def summed(tally: Tally, results: Sequence[ItemResult], seed: str) -> Tally:
    """With the interval of the mean, and the mean of every metric where that has a value."""
    scored = [(each.score, each.weight) for each in results if each.score is not None]
    interval = weighted_interval([score for score, _ in scored], [weight for _, weight in scored], seed)
    names = dict.fromkeys(name for each in results for name in each.metrics)
    means = {name: _mean(name, results) for name in names}
    known = {name: mean for name, mean in means.items() if mean is not None}
    return replace(tally, interval=interval, metrics=known)


def _mean(name: str, results: Sequence[ItemResult]) -> float | None:
    found = [(each.metrics.get(name, {}).get("score"), each.weight) for each in results]
    known = [(score, weight) for score, weight in found if score is not None]
    total = sum(weight for _, weight in known)
    return sum(score * weight for score, weight in known) / total if total else None


def _together(spent: Sequence[Mapping[str, Totals]]) -> dict[str, Totals]:
    roles = dict.fromkeys(role for each in spent for role in each)
    return {role: sum_of(each[role] for each in spent if role in each) for role in roles}


def _awaited(job: Job | None) -> bool:
    return job is not None and is_awaited(job)
