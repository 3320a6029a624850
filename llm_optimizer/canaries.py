"""What is done for the canaries of a prompt flow: implements engine.driving.Errand.

All that is stored are the pairs. What was asked for the jobs that are not among them yet only the queue knows, which is
enough: a call that was made is found by its id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from engine.driving import Driver
from engine.errors import LeaseLost
from engine.evaluation.measures import Measures
from engine.jobs.job import Job, Lease
from engine.jobs.queue import JobQuery, JobQueue, Page
from engine.jobs.references import canary_text, reference_text
from engine.jobs.signals import JobSignals
from engine.jobs.states import JobState
from engine.records.canaries import MOST_LOOKED_AT, OPERATION, Canary, CanaryStatus, Pair, ended, looked
from engine.records.evaluators import Evaluator
from engine.records.runs import OPTIMIZER, Withdrawal
from engine.records.store import RecordStore, Storage, Where
from engine.records.values import PromptFlow
from llm_optimizer.metric_scoring import MetricScoring
from llm_optimizer.pairing import TRIAL, Pairing, Standing
from llm_optimizer.rollouts import is_awaited, job_of
from llm_optimizer.run_tools import Watch
from llm_optimizer.withdrawal import OwnJobs
from llm_optimizer.woken import Woken
from utilities.clock import Clock

WINDOW = 40
"""Jobs of a canary that are looked at at a time, and so calls to the flow's own prompts that wait at most."""

_MOST_FLOWS = 10_000
_SOON_SECONDS = 0.5
_LATER_SECONDS = 2.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryTools:
    """What steps are taken with."""

    flows: RecordStore[PromptFlow]
    evaluators: RecordStore[Evaluator]
    queue: JobQueue
    jobs: OwnJobs
    measures: Measures
    clock: Clock
    watch: Watch

    def write(self, flow: PromptFlow) -> PromptFlow:
        """Stores it by its revision. Raises LeaseLost where somebody has changed it."""
        if not self.flows.compare_and_set(flow):
            raise LeaseLost(f"prompt flow {flow.id} was changed meanwhile")
        return replace(flow, revision=flow.revision + 1)


class CanaryErrand:
    """For the driver's threads; one flow by one of them at a time. Nothing is kept between two steps."""

    def __init__(self, tools: CanaryTools) -> None:
        self._tools = tools

    def unfinished(self) -> Sequence[PromptFlow]:
        return self._tools.flows.find(Where(equals={"canaryOpen": [True]}), Page(limit=_MOST_FLOWS))

    def get(self, record_id: str) -> PromptFlow | None:
        found = self._tools.flows.get(record_id)
        if found is None or not found.canary_open:
            self._tools.watch.forget(record_id)
            self._withdraw_ended(record_id, None if found is None else found.client_id)
            return None
        return found

    def held(self, record: PromptFlow, lease: Lease | None) -> PromptFlow:
        return self._tools.write(replace(record, lease=lease))

    def step(self, record: PromptFlow) -> float | None:
        """Pairs that are complete are stored, and with them what they say: one write for all of a flow's canaries."""
        self._tools.watch.taken(record.id)
        self._withdraw_ended(record.id, record.client_id, record.canaries)
        steps = [self._advanced(record, canary) for canary in record.canaries]
        canaries = tuple(canary for canary, _ in steps)
        if canaries != record.canaries:
            record = self._stored(record, canaries)
        if not record.canary_open:
            return None
        return _SOON_SECONDS if any(is_busy for _, is_busy in steps) else _LATER_SECONDS

    def _stored(self, before: PromptFlow, canaries: tuple[Canary, ...]) -> PromptFlow:
        now = self._tools.clock.now()
        flow = replace(before, canaries=canaries)
        if flow.shares != before.shares:
            flow = replace(flow, metadata=before.metadata.touched(now, OPTIMIZER))
        written = self._tools.write(flow if flow.canary_open else replace(flow, lease=None))
        for old, new in zip(before.canaries, canaries, strict=True):
            if old.status is not new.status:
                log.info("canary_ended", flow=flow.id, prompt=new.prompt_id, status=str(new.status))
        if flow.shares != before.shares or not flow.canary_open:
            self._withdraw_ended(flow.id, flow.client_id, canaries)
        return written

    def _withdraw_ended(self, flow_id: str, client_id: str | None, canaries: Sequence[Canary] = ()) -> None:
        """Takes back what waits for canaries that run no more, by whatever they were ended: nobody needs it."""
        running = {canary.id for canary in canaries if canary.status is CanaryStatus.RUNNING}
        of_flow = (reference_text("promptFlowId", flow_id),)
        query = JobQuery(client_id=client_id, status=JobState.PENDING, operation=OPERATION, references=of_flow)
        own = [job for job in self._tools.queue.find(query, Page()) if job.metadata.created_by == OPTIMIZER]
        left = [job.id for job in own if (job.client_reference or {}).get(TRIAL) not in (None, *running)]
        if left:
            self._tools.jobs.withdraw(left, Withdrawal.QUEUED, self._tools.clock.now())

    def _advanced(self, flow: PromptFlow, canary: Canary) -> tuple[Canary, bool]:
        """The canary with the pairs that are new, and whether something of it is under way."""
        if canary.status is not CanaryStatus.RUNNING:
            return canary, False
        now = self._tools.clock.now()
        evaluator = self._tools.evaluators.get(flow.canary_evaluator or "")
        if evaluator is None:
            reason = f"evaluator not found: {flow.canary_evaluator}"
            return ended(canary, CanaryStatus.UNDECIDED, now, reason=reason), False
        known = {pair.job_id for pair in canary.pairs}
        window = self._window(flow, canary)
        fresh = [job for job in window if job.id not in known and not is_awaited(job)]
        standings = self._asked(flow, canary, fresh, MetricScoring(evaluator.metrics, self._tools.measures))
        pairs = [each.pair for each in standings if each.pair is not None][: MOST_LOOKED_AT - len(canary.pairs)]
        done = known | {pair.job_id for pair in pairs}
        return looked(_with(canary, pairs, _leading(window, done)), now), len(pairs) < len(standings)

    def _window(self, flow: PromptFlow, canary: Canary) -> Sequence[Job]:
        query = JobQuery(client_id=flow.client_id, references=(canary_text(canary.id),))
        found = self._tools.queue.find(query, Page(limit=WINDOW, skip=canary.passed))
        return [job for job in found if job.canary_trial == canary.id]

    def _asked(
        self, flow: PromptFlow, canary: Canary, fresh: Sequence[Job], scoring: MetricScoring
    ) -> Sequence[Standing]:
        """How the jobs stand after every call was made that can be made now."""
        pairing, jobs = Pairing(flow, canary, scoring), dict[str, Job | None]()
        while True:
            standings = [pairing.standing(job, jobs) for job in fresh]
            wanted = {job_id: spec for each in standings for job_id, spec in each.wanted.items()}
            if not wanted:
                break
            jobs |= self._tools.queue.get_many(list(wanted))
            missing = {job_id: spec for job_id, spec in wanted.items() if job_id not in jobs}
            if missing:
                now, owner = self._tools.clock.now(), pairing.owner
                self._tools.watch.add(list(missing), flow.id)
                self._tools.jobs.insert([job_of(owner, spec, now) for spec in missing.values()])
                found = self._tools.queue.get_many(list(missing))
                jobs |= {job_id: found.get(job_id) for job_id in missing}
        self._watched(flow, jobs)
        complete = {job_id for each in standings if each.pair is not None for job_id in each.jobs}
        results = [job for job_id, job in jobs.items() if job is not None and job_id in complete]
        if not self._tools.jobs.consume(results, self._tools.clock.now()):
            raise LeaseLost(f"jobs of prompt flow {flow.id} were changed meanwhile")
        return standings

    def _watched(self, flow: PromptFlow, jobs: Mapping[str, Job | None]) -> None:
        waiting = [job_id for job_id, job in jobs.items() if job is not None and is_awaited(job)]
        self._tools.watch.add(waiting, flow.id)
        self._tools.watch.remove([job_id for job_id in jobs if job_id not in waiting])


def _leading(window: Sequence[Job], done: set[str]) -> int:
    """How many jobs at the beginning are done with."""
    return next((place for place, job in enumerate(window) if job.id not in done), len(window))


def _with(canary: Canary, pairs: Sequence[Pair], passed: int) -> Canary:
    return replace(canary, pairs=(*canary.pairs, *pairs), passed=canary.passed + passed)


def canary_tools(storage: Storage, signals: JobSignals, clock: Clock) -> CanaryTools:
    """As a process that has just started has them."""
    return CanaryTools(
        flows=storage.prompt_flows,
        evaluators=storage.evaluators,
        queue=storage.jobs,
        jobs=OwnJobs(storage.jobs, signals),
        measures=Measures(),
        clock=clock,
        watch=Watch(),
    )


def build_canaries(
    storage: Storage, *, signals: JobSignals, clock: Clock, replica: str, lease: timedelta, poll: float
) -> Woken[PromptFlow]:
    """`replica` names this process in leases; see Driver for `lease` and `poll`."""
    tools = canary_tools(storage, signals, clock)
    driver = Driver(CanaryErrand(tools), name="canaries", owner=replica, clock=clock, lease=lease, poll=poll)
    return Woken(driver, tools.watch, signals, tools.measures.close)
