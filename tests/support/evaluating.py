"""Evaluations in this process: stepped by hand, with models that a test plays."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from engine.errors import LeaseLost, StorageUnavailable
from engine.evaluation.values import Metric, MetricKind
from engine.jobs.job import Job
from engine.jobs.outcome import Completed, DeadLettered, Outcome
from engine.jobs.queue import ClaimFilter, ClaimRequest
from engine.jobs.signals import JobSignals
from engine.records.datasets import DatasetItem, parts_of, starts_of
from engine.records.evaluation_results import EvaluationResults
from engine.records.evaluations import Contender, Evaluation, ItemsAt
from engine.records.store import Storage
from llm_optimizer.evaluating import EvaluationErrand, EvaluationTools
from llm_optimizer.evaluations import evaluation_tools
from tests.support.factories import CLIENT, IDS, make_failure, metadata
from tests.support.optimizing import settled
from utilities.clock import SystemClock

Play = Callable[[Job], Outcome]
_CLOCK = SystemClock()

METRICS = (
    Metric(kind=MetricKind.EXACT, name="exact", weight=1.0),
    Metric(kind=MetricKind.LENGTH, name="short", weight=0.0, hard=True, parameters={"max": 5}),
    Metric(kind=MetricKind.LLM_JUDGE, name="judge", weight=3.0, parameters={"model": "judge", "rubric": "is right"}),
)


def answers(job: Job) -> Outcome:
    """Item n is answered by n; every third answer is too long for the gate, and the judge gives 0.5."""
    if (job.client_reference or {})["role"] == "eval":
        return Completed(result={"score": 0.5, "feedback": "half"})
    number = int(job.request_data["n"])
    return Completed(result={"text": f"{number} is it" if number % 3 == 2 else str(number)})


def refusing_judge(job: Job) -> Outcome:
    """The same, but the judge fails for every second item."""
    reference = job.client_reference or {}
    if reference["role"] == "eval" and int(reference["exampleId"]) % 2:
        return DeadLettered(make_failure())
    return answers(job)


def begun(storage: Storage, count: int = 4, **fields: Any) -> Evaluation:
    """An evaluation of `count` items, stored with them: item n expects n, or where n is 1 something else."""
    items = [DatasetItem(id=str(n), input={"n": n}, expected="other" if n == 1 else str(n)) for n in range(count)]
    dataset_id = IDS.new()
    parts = parts_of(dataset_id, items, metadata())
    for part in parts:
        storage.dataset_parts.add(part)
    values: dict[str, Any] = {
        "id": IDS.new(),
        "client_id": CLIENT,
        "name": None,
        "dataset_id": dataset_id,
        "evaluator_id": IDS.new(),
        "items": ItemsAt(id=dataset_id, count=count, starts=starts_of(parts)),
        "metrics": METRICS,
        "contenders": (Contender(instructions="Answer."),),
        "models": ("m",),
        "temperature": 0.0,
        "response_format": "text",
        "priority": 100,
        "max_parallel": 16,
        "seed": 1,
        "metadata": metadata(created_at=_CLOCK.now()),
    }
    evaluation = Evaluation(**{**values, **fields})
    storage.evaluations.add(evaluation)
    return evaluation


def results_of(storage: Storage, evaluation: Evaluation) -> list[dict[str, Any]]:
    """What is the same in two evaluations of the same."""
    return [
        {
            "item": each.item_id,
            "cell": each.cell,
            "mark": str(each.mark),
            "score": each.score,
            "metrics": each.metrics,
            "feedback": each.feedback,
        }
        for each in EvaluationResults(storage.evaluation_parts).all(evaluation)
    ]


@dataclass
class EvaluationBench:
    """`storage` may be a faulty one, `truth` is behind it. A job that is done twice fails the test."""

    storage: Storage
    truth: Storage
    seen: set[str] = field(default_factory=set)
    most_waiting: int = 0
    opened: list[EvaluationTools] = field(default_factory=list)

    def errand(self) -> EvaluationErrand:
        """As a process that has just started has it."""
        self.opened.append(evaluation_tools(self.storage, JobSignals(), _CLOCK))
        return EvaluationErrand(self.opened[-1])

    def play(self, play: Play, tools: EvaluationTools) -> None:
        """Claims all that is ready, settles it as `play` has it, and tells who waits."""
        now = _CLOCK.now()
        wanted = ClaimFilter(client_id=CLIENT)
        request = ClaimRequest(filter=wanted, owner="player", expires_at=now + timedelta(minutes=1), limit=1000)
        jobs = self.truth.jobs.claim(request, now)
        self.most_waiting = max(self.most_waiting, len(jobs))
        for job in jobs:
            assert job.id not in self.seen, "a job was done twice"
            self.seen.add(job.id)
        assert all(self.truth.jobs.settle([settled(job, play(job)) for job in jobs], now))
        for job in jobs:
            tools.watch.tell(job.id)

    def stepped(self, evaluation_id: str, play: Play = answers, most: int = 400) -> Evaluation:
        """The evaluation once no step is left. Whenever the storage fails, its process is taken to have died."""
        errand = self.errand()
        for _ in range(most):
            try:
                evaluation = errand.get(evaluation_id)
                if evaluation is None:
                    break
                errand.step(evaluation)
            except LeaseLost:
                continue
            except StorageUnavailable:
                errand = self.errand()
            self.play(play, self.opened[-1])
        found = self.truth.evaluations.get(evaluation_id)
        assert found is not None
        assert not found.is_open, "steps are left"
        return found


@contextmanager
def bench(storage: Storage, truth: Storage | None = None) -> Iterator[EvaluationBench]:
    made = EvaluationBench(storage, truth or storage)
    try:
        yield made
    finally:
        for tools in made.opened:
            tools.measures.close()
