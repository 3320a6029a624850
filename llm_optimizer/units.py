"""One answer of an evaluation: the calls that it takes, and what came of them. Pure but for the measuring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.evaluation.answers import answer_of
from engine.evaluation.judging import JudgeCall, judge_calls, judged
from engine.evaluation.measures import Measures
from engine.evaluation.values import (
    JUDGES,
    Errored,
    Measured,
    Metric,
    Outcome,
    Sample,
    Unscored,
    Value,
    combined,
    complete,
    settled_by,
)
from engine.jobs.job import Job, Totals
from engine.llm import JsonObject
from engine.records.datasets import DatasetItem
from engine.records.evaluations import OPERATION, Evaluation, ItemResult, Mark
from engine.records.runs import sum_of
from llm_optimizer.rollouts import (
    Owner,
    Role,
    RolloutSpec,
    is_awaited,
    job_id_of,
    judge_spec,
    paid,
    problem_of,
    response_of,
)

LONGEST_FEEDBACK = 1_500
"""Characters of a feedback or a reason as a result keeps it; the jobs have all of it."""

Jobs = Mapping[str, Job | None]
"""What is known of jobs by their ids; None: it was deleted."""


@dataclass(frozen=True, slots=True)
class _Question:
    """A judge's calls about one answer, by the ids of their jobs."""

    metric: Metric
    calls: Mapping[str, RolloutSpec]

    def outcome(self, jobs: Jobs) -> Outcome:
        found = [jobs[job_id] for job_id in self.calls]
        answers = [None if job is None else response_of(job) for job in found]
        missing = [problem_of(job) for job, answer in zip(found, answers, strict=True) if answer is None]
        return Unscored(missing[0]) if missing else judged(self.metric, answers)


@dataclass(slots=True, kw_only=True)
class Unit:
    """An item in a cell. What is known of it is kept in memory: measuring twice would give the same."""

    evaluation: Evaluation
    item: DatasetItem
    cell: int
    measures: Measures
    work: RolloutSpec = field(init=False)
    work_id: str = field(init=False)
    measured: tuple[Measured, ...] | None = None
    questions: tuple[_Question, ...] = ()

    def __post_init__(self) -> None:
        contender, model = self.evaluation.cell(self.cell)
        self.work = RolloutSpec(
            role=Role.WORK,
            model=model,
            prompts=contender.prompts,
            instructions=contender.instructions,
            request_data=self.item.request_data,
            temperature=self.evaluation.temperature,
            response_format=self.evaluation.response_format,
            tag=self.item.id,
            reference=self._reference,
        )
        self.work_id = job_id_of(owner_of(self.evaluation), self.work)

    @property
    def job_ids(self) -> tuple[str, ...]:
        """Of all calls that are known to be needed."""
        return (self.work_id, *(job_id for question in self.questions for job_id in question.calls))

    def wanted(self, jobs: Jobs) -> dict[str, RolloutSpec]:
        """The calls that can be made now and are not known to have been, by the ids of their jobs."""
        if self.work_id not in jobs:
            return {self.work_id: self.work}
        self._look(jobs[self.work_id])
        asked = [pair for question in self.questions for pair in question.calls.items()]
        return {job_id: spec for job_id, spec in asked if job_id not in jobs}

    def result(self, jobs: Jobs) -> ItemResult | None:
        """None while something is awaited."""
        if self.wanted(jobs) or any(_awaited(jobs[job_id]) for job_id in self.job_ids):
            return None
        work = jobs[self.work_id]
        if work is None or response_of(work) is None:
            return self._ended(Unscored(problem_of(work)), ())
        judged_by = (Measured(each.metric, each.outcome(jobs)) for each in self.questions)
        measured = complete(self.evaluation.metrics, (*(self.measured or ()), *judged_by))
        return self._ended(combined(measured), measured)

    def spent(self, jobs: Jobs) -> dict[str, Totals]:
        """What its calls took, by role."""
        first, *others = self.job_ids
        spent = {Role.WORK: _paid(jobs, [first]), Role.EVAL: _paid(jobs, others)}
        return {str(role): totals for role, totals in spent.items() if totals.calls}

    @property
    def _reference(self) -> dict[str, str | int]:
        return {"cell": self.cell, "exampleId": self.item.id}

    def _look(self, work: Job | None) -> None:
        """Once the answer is there: measures it. Judges are asked only where they can change something."""
        response = None if work is None else response_of(work)
        if self.measured is not None or response is None or _awaited(work):
            return
        sample = Sample(
            output=answer_of(response), input=self.item.input, expected=self.item.expected, tags=self.item.tags
        )
        metrics = self.evaluation.metrics
        self.measured = tuple(self.measures.measured(metrics, sample))
        if settled_by(self.measured) is None:
            self.questions = tuple(self._question(metric, sample) for metric in metrics if metric.kind in JUDGES)

    def _question(self, metric: Metric, sample: Sample) -> _Question:
        owner = owner_of(self.evaluation)
        specs = [self._judge(call) for call in judge_calls(metric, sample)]
        return _Question(metric, {job_id_of(owner, spec): spec for spec in specs})

    def _judge(self, call: JudgeCall) -> RolloutSpec:
        return judge_spec(call, f"{self.item.id}/{self.cell}/{call.key}", self._reference)

    def _ended(self, outcome: Outcome, measured: Sequence[Measured]) -> ItemResult:
        result = ItemResult(
            item_id=self.item.id,
            cell=self.cell,
            mark=_mark(outcome),
            weight=self.item.weight,
            job_id=self.work_id,
            metrics={each.metric.name: _metric_to_json(each.outcome) for each in measured},
            judge_jobs=self.job_ids[1:],
        )
        if isinstance(outcome, Value):
            return replace(result, score=outcome.score, feedback=_cut(outcome.feedback))
        return replace(result, reason=_cut(outcome.reason))


def owner_of(evaluation: Evaluation) -> Owner:
    return Owner(
        id=evaluation.id,
        client_id=evaluation.client_id,
        operation=OPERATION,
        planned_at=evaluation.metadata.created_at,
        created_by=evaluation.metadata.created_by,
        priority=evaluation.priority,
        reference={"evaluationId": evaluation.id},
    )


def _awaited(job: Job | None) -> bool:
    return job is not None and is_awaited(job)


def _paid(jobs: Jobs, job_ids: Sequence[str]) -> Totals:
    found = (jobs[job_id] for job_id in job_ids)
    return sum_of(paid(job) for job in found if job is not None)


def _mark(outcome: Outcome) -> Mark:
    if isinstance(outcome, Value):
        return Mark.SCORED
    return Mark.ERROR if isinstance(outcome, Errored) else Mark.UNSCORED


def _metric_to_json(outcome: Outcome) -> JsonObject:
    if isinstance(outcome, Value):
        return {"score": outcome.score, "feedback": _cut(outcome.feedback)}
    if isinstance(outcome, Errored):
        return {"error": _cut(outcome.reason)}
    return {"unscored": _cut(outcome.reason)}


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:LONGEST_FEEDBACK]
