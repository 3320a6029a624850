"""Canaries in this process: flows with finished jobs, stepped by hand, with models that a test plays."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from engine.errors import LeaseLost, StorageUnavailable
from engine.evaluation.values import Metric, MetricKind
from engine.jobs.job import Job
from engine.jobs.outcome import Completed, Outcome
from engine.jobs.queue import ClaimFilter, ClaimRequest
from engine.jobs.signals import JobSignals
from engine.records.canaries import Canary
from engine.records.store import Storage
from engine.records.values import PromptFlow
from llm_optimizer.canaries import CanaryErrand, CanaryTools, canary_tools
from tests.support.factories import CLIENT, IDS, make_evaluator, make_flow, make_jobs, metadata
from tests.support.optimizing import settled
from utilities.clock import SystemClock

Play = Callable[[Job], Outcome]
CLOCK = SystemClock()
OWN, TRIED = "a" * 24, "c" * 24
LONGEST = 4
"""Characters of an answer that scores 1; a longer one scores 0."""

METRICS = (
    Metric(kind=MetricKind.LENGTH, name="short", weight=3.0, parameters={"max": LONGEST}),
    Metric(kind=MetricKind.LLM_JUDGE, name="judge", weight=1.0, parameters={"model": "judge", "rubric": "is short"}),
)


def says(job: Job, text: str) -> Outcome:
    """The answer to a job, and 0.5 from the judge."""
    if (job.client_reference or {}).get("role") == "eval":
        return Completed(result={"score": 0.5, "feedback": "half"})
    return Completed(result={"text": text})


def worse(job: Job) -> Outcome:
    """The canary is always too long."""
    return says(job, "far too long" if TRIED in job.working_prompts else "fine")


def alike(job: Job) -> Outcome:
    """Every third answer is too long, whoever gives it; the canary does it at other jobs."""
    number = int(job.request_data.get("n", 0)) + (TRIED in job.working_prompts)
    return says(job, "far too long" if number % 3 == 0 else "fine")


def tried(storage: Storage, jobs: int, **fields: Any) -> PromptFlow:
    """A stored flow with a canary, that has `jobs` jobs in its sample waiting to be played, and an evaluator."""
    evaluator = make_evaluator(name=IDS.new(), metrics=METRICS)
    storage.evaluators.add(evaluator)
    canary = Canary(id=IDS.new(), prompt_id=TRIED, replaces=OWN, share=0.5, since=CLOCK.now())
    flow = make_flow(canaries=(canary,), canary_evaluator=evaluator.id, canary_sample=1.0, **fields)
    storage.prompt_flows.add(flow)
    given = {"prompt_flow": flow.id, "canary": TRIED, "canary_trial": canary.id, "working_prompts": (TRIED, "b" * 24)}
    made = [replace(job, request_data={"n": number}) for number, job in enumerate(make_jobs(jobs, **given))]
    storage.jobs.insert([replace(job, metadata=metadata(created_at=CLOCK.now())) for job in made])
    return flow


@dataclass
class CanaryBench:
    """`storage` may be a faulty one, `truth` is behind it. A job that is done twice fails the test."""

    storage: Storage
    truth: Storage
    seen: set[str] = field(default_factory=set)
    opened: list[CanaryTools] = field(default_factory=list)

    def errand(self) -> CanaryErrand:
        """As a process that has just started has it."""
        self.opened.append(canary_tools(self.storage, JobSignals(), CLOCK))
        return CanaryErrand(self.opened[-1])

    def play(self, play: Play) -> int:
        """Claims all that is ready and settles it as `play` has it; answers how many jobs that were."""
        now = CLOCK.now()
        wanted = ClaimFilter(client_id=CLIENT)
        request = ClaimRequest(filter=wanted, owner="player", expires_at=now + timedelta(minutes=1), limit=1000)
        jobs = self.truth.jobs.claim(request, now)
        assert not self.seen & {job.id for job in jobs}, "a job was done twice"
        self.seen |= {job.id for job in jobs}
        assert all(self.truth.jobs.settle([settled(job, play(job)) for job in jobs], now))
        return len(jobs)

    def stepped(self, flow_id: str, play: Play, most: int = 100) -> PromptFlow:
        """The flow once nothing is left to do. Whenever the storage fails, its process is taken to have died."""
        errand = self.errand()
        self.play(play)
        for _ in range(most):
            try:
                flow = errand.get(flow_id)
                if flow is None:
                    break
                errand.step(flow)
            except LeaseLost:
                continue
            except StorageUnavailable:
                errand = self.errand()
                continue
            if not self.play(play) and _revision(self.truth, flow_id) == flow.revision:
                break
        found = self.truth.prompt_flows.get(flow_id)
        assert found is not None
        return found


def _revision(storage: Storage, flow_id: str) -> int:
    found = storage.prompt_flows.get(flow_id)
    return -1 if found is None else found.revision


@contextmanager
def bench(storage: Storage, truth: Storage | None = None) -> Iterator[CanaryBench]:
    made = CanaryBench(storage, truth or storage)
    try:
        yield made
    finally:
        for tools in made.opened:
            tools.measures.close()
