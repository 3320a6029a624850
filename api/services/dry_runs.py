"""An evaluator tried on one item, before anything is evaluated by it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from api.core.gate import Gate
from api.services.direct import DirectService, Patience
from api.services.job_drafts import Maker
from engine.evaluation.answers import answer_of
from engine.evaluation.judging import JudgeCall, judge_calls, judged
from engine.evaluation.measures import Measures
from engine.evaluation.values import (
    JUDGES,
    Measured,
    Metric,
    Outcome,
    Sample,
    Unscored,
    combined,
    complete,
    settled_by,
)
from engine.jobs.job import DEFAULT_MAX_ATTEMPTS, Job, Totals
from engine.jobs.states import JobState
from engine.llm import JsonObject, ResponseFormat
from engine.records.evaluations import OPERATION
from engine.records.evaluators import Evaluator
from engine.records.runs import sum_of


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDraft:
    """Implements api.services.job_drafts.JobDraft: one call of a dry run."""

    model: str
    request_data: JsonObject
    client_reference: JsonObject
    instructions: str | None = None
    working_prompts: Sequence[str] = ()
    temperature: float = 0.0
    response_format: ResponseFormat = "json"
    operation: str = OPERATION
    priority: int = 1
    client_job_id: None = None
    eval_prompt: None = None
    eval_model: None = None
    evaluator: None = None
    expected: None = None
    meta_prompt: None = None
    meta_model: None = None
    endpoint: None = None
    prompt_flow: None = None
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    not_before: None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trying:
    """The item. `work` asks for its output; None where that is given in `sample`."""

    sample: Sample
    work: CallDraft | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """`outcome` is what all metrics together say. `jobs` are the ids of those that were made, `totals` their sums."""

    outcome: Outcome
    output: Any = None
    measured: tuple[Measured, ...] = ()
    jobs: tuple[str, ...] = ()
    totals: Totals = field(default=Totals())


Call = Callable[[CallDraft], Awaitable[Job]]


class DryRuns:
    """For one event loop. The calls are jobs whose end is waited for, here and at once."""

    def __init__(self, direct: DirectService, measures: Measures, gate: Gate) -> None:
        self._direct = direct
        self._measures = measures
        self._gate = gate

    async def run(self, evaluator: Evaluator, trying: Trying, maker: Maker, patience: Patience) -> Tried:
        """Raises UnknownReference for a prompt or model that is unknown, and TooManyAtOnce."""
        made: list[Job] = []

        async def call(draft: CallDraft) -> Job:
            answered = await self._direct.run(draft, maker, None, patience)
            made.append(answered.job)
            return answered.job

        tried = await self._tried(evaluator, trying, call)
        return replace(tried, jobs=tuple(job.id for job in made), totals=sum_of(job.totals for job in made))

    async def _tried(self, evaluator: Evaluator, trying: Trying, call: Call) -> Tried:
        sample = trying.sample
        if trying.work is not None:
            worked = await call(trying.work)
            if worked.status is not JobState.PROCESSED:
                return Tried(outcome=Unscored(_why(worked)))
            sample = replace(sample, output=answer_of(worked.response_data))
        known = await self._gate(self._measures.measured, evaluator.metrics, sample)
        for metric in evaluator.metrics:
            if metric.kind in JUDGES and settled_by(known) is None:
                known.append(Measured(metric, await _judged(evaluator, metric, sample, call)))
        measured = complete(evaluator.metrics, known)
        return Tried(outcome=combined(measured), output=sample.output, measured=measured)


async def _judged(evaluator: Evaluator, metric: Metric, sample: Sample, call: Call) -> Outcome:
    answers = []
    for asked in judge_calls(metric, sample):
        job = await call(_draft(evaluator, asked))
        if job.status is not JobState.PROCESSED:
            return Unscored(_why(job))
        answers.append(job.response_data)
    return judged(metric, answers)


def _draft(evaluator: Evaluator, asked: JudgeCall) -> CallDraft:
    return CallDraft(
        model=asked.model,
        request_data=asked.request_data,
        instructions=asked.instructions,
        temperature=asked.temperature,
        response_format=asked.response_format,
        client_reference={"evaluatorId": evaluator.id, "role": "eval"},
    )


def _why(job: Job) -> str:
    if job.failure is not None and job.status is JobState.ERROR_PROCESSING:
        return f"job {job.id} ended in an error: {job.failure.error_type}: {job.failure.message}"
    return f"job {job.id} is {job.status} and has no answer yet"
