"""What keeps work that is made of many jobs from going on: batches, runs, evaluations."""

from api.services.explain import Explainer
from engine.jobs.job import Job
from engine.jobs.queue import JobQuery, JobQueue, Page
from engine.jobs.references import reference_text
from engine.jobs.states import JobState
from engine.records import evaluations, runs
from engine.records.evaluations import Evaluation, EvaluationStatus
from engine.records.runs import Run, RunStatus

GOES_ON = frozenset({"in_line", "processing"})
"""Reasons of an Explanation that mean: it goes on by itself."""

Waiting = tuple[str, str]
"""A stable word, and a sentence for people."""


class Waits:
    """Reads only; a few bounded queries."""

    def __init__(self, queue: JobQueue, explainer: Explainer) -> None:
        self._queue = queue
        self._explainer = explainer

    def of_run(self, run: Run) -> Waiting | None:
        """None where it goes on by itself, or has no job that waits."""
        if run.status is not RunStatus.RUNNING:
            return None
        return self._of(self.pending(run.client_id, runs.OPERATION, "runId", run.id))

    def of_evaluation(self, evaluation: Evaluation) -> Waiting | None:
        """As of_run."""
        if evaluation.status is not EvaluationStatus.RUNNING:
            return None
        return self._of(self.pending(evaluation.client_id, evaluations.OPERATION, "evaluationId", evaluation.id))

    def pending(self, client_id: str, operation: str, name: str, value: str) -> Job | None:
        """A job that waits and has `value` under `name` in its reference."""
        query = JobQuery(
            client_id=client_id,
            operation=operation,
            status=JobState.PENDING,
            references=(reference_text(name, value),),
        )
        return next(iter(self._queue.find(query, Page(limit=1))), None)

    def for_(self, job: Job) -> Waiting | None:
        """What the job waits for."""
        explained = self._explainer.explain(job)
        return None if explained.reason in GOES_ON else (explained.reason, explained.text)

    def _of(self, job: Job | None) -> Waiting | None:
        return None if job is None else self.for_(job)
