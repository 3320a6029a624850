"""Greedy refinement, as existing clients know it: one input, model after model, each iteration an ordinary job whose
meta step suggests the prompt of the next one. Pure functions from a run and its finished job to the run after it."""

from dataclasses import replace
from datetime import datetime

import orjson

from engine.jobs.changes import added
from engine.jobs.job import Attempt, Job, Totals, totals_of
from engine.jobs.states import JobState
from engine.llm import JsonObject
from engine.metadata import Metadata
from engine.records.runs import OPERATION, OPTIMIZER, Iteration, ModelRun, Run, RunStatus, failed

MOST_ITERATIONS = 2_000
"""Of all models of a run together: a record of so many stays below a megabyte."""

_LARGEST_EVALUATION = 16 * 1024
_LARGEST_EVALUATIONS = 512 * 1024


def job_of(run: Run, job_id: str, now: datetime) -> Job:
    """The job of the run's current iteration."""
    working = _prompts(run)
    used = (*working, run.eval_prompt_id, run.meta_prompt_id)
    return Job(
        id=job_id,
        client_id=run.client_id,
        operation=OPERATION,
        working_prompts=working,
        pins={prompt_id: run.pins[prompt_id] for prompt_id in used if prompt_id in run.pins} or None,
        model=run.working_models[run.current_model_index],
        temperature=run.temperature,
        priority=run.priority,
        request_data=run.request_data,
        client_reference={
            "runId": run.id,
            "modelIndex": run.current_model_index,
            "iteration": run.current_iteration,
        },
        eval_prompt=run.eval_prompt_id,
        eval_model=run.eval_model,
        meta_prompt=run.meta_prompt_id,
        meta_model=run.meta_model,
        metadata=Metadata(created_at=now, created_by=run.metadata.created_by),
    )


def _prompts(run: Run) -> tuple[str, ...]:
    """The initial prompts, later the last suggestion alone."""
    done = _iterations(run)
    suggested = done[-1].suggested_prompt_id if run.current_iteration and done else None
    return run.initial_prompt_ids if suggested is None else (suggested,)


def _iterations(run: Run) -> tuple[Iteration, ...]:
    """Those of the current model."""
    return run.model_runs[-1].iterations if len(run.model_runs) > run.current_model_index else ()


def awaited(job: Job) -> bool:
    """Whether the job may still end well."""
    return job.status in (JobState.PENDING, JobState.PROCESSING)


def was_dropped(job: Job) -> bool:
    """Whether a pause took the job back."""
    return job.status is JobState.CANCELED and job.metadata.updated_by == OPTIMIZER


def is_result(job: Job) -> bool:
    """Whether the job has ended well and nobody else has taken its result."""
    consumed_here = job.status is JobState.CONSUMED and job.metadata.updated_by == OPTIMIZER
    return job.status is JobState.PROCESSED or consumed_here


def after(run: Run, job: Job, next_id: str, now: datetime) -> Run:
    """The run after its current job has ended in whatever way: with `next_id` as its current job, or ended too."""
    recorded = _recorded(run, job)
    if not is_result(job):
        return failed(recorded, _why(job), now)
    if job.suggested_prompt_id is None:
        return failed(recorded, f"job {job.id} ended without a suggested prompt", now)
    moved = _moved(recorded)
    if moved is None:
        metadata = run.metadata.touched(now, OPTIMIZER)
        return replace(recorded, status=RunStatus.COMPLETED, current_job_id=None, metadata=metadata)
    return replace(moved, current_job_id=next_id)


def after_gone(run: Run, now: datetime) -> Run:
    """The run after its current job was deleted."""
    return failed(run, f"job {run.current_job_id} was deleted before the run had its result", now)


def _moved(run: Run) -> Run | None:
    """At the next iteration, of the next model where this one has had all of its; None where there is none."""
    if run.current_iteration + 1 < run.max_iterations:
        return replace(run, current_iteration=run.current_iteration + 1)
    if run.current_model_index + 1 < len(run.working_models):
        return replace(run, current_model_index=run.current_model_index + 1, current_iteration=0)
    return None


def _recorded(run: Run, job: Job) -> Run:
    iteration = Iteration(
        number=run.current_iteration,
        job_id=job.id,
        working_prompt_id=job.working_prompts[0],
        status=str(JobState.PROCESSED if is_result(job) else job.status),
        eval_result=_kept(job.eval_result, run),
        suggested_prompt_id=job.suggested_prompt_id,
        totals=job.totals,
    )
    done = ModelRun(
        model=run.working_models[run.current_model_index],
        iterations=(*_iterations(run), iteration),
    )
    spent = dict(run.spent)
    for role, totals in by_role(job.ledger).items():
        spent[role] = added(spent.get(role, Totals()), totals)
    return replace(run, model_runs=(*run.model_runs[: run.current_model_index], done), spent=spent)


def by_role(ledger: tuple[Attempt, ...]) -> dict[str, Totals]:
    """What the calls of a ledger took, by their step: work, eval, meta."""
    calls = [call for attempt in ledger for call in attempt.calls]
    roles = dict.fromkeys(call.step for call in calls)
    return {role: totals_of(call for call in calls if call.step == role) for role in roles}


def _kept(evaluation: JsonObject | None, run: Run) -> JsonObject | None:
    """The evaluation as the run keeps it: a large one stays with its job, lest the record outgrows its database."""
    if evaluation is None:
        return None
    size = len(orjson.dumps(evaluation, option=orjson.OPT_NON_STR_KEYS))
    room = max(_LARGEST_EVALUATIONS // max(len(run.working_models) * run.max_iterations, 1), 128)
    if size <= min(_LARGEST_EVALUATION, room) or size <= 128:
        return evaluation
    return {"note": "too large to be kept here: the job has it as its evalResult"}


def _why(job: Job) -> str:
    if job.failure is not None and job.status is JobState.ERROR_PROCESSING:
        return f"job {job.id} ended in an error: {job.failure.error_type}: {job.failure.message}"
    ended = {
        JobState.CANCELED: "was canceled",
        JobState.CONSUMED: "was consumed by somebody else",
        JobState.ERROR_CONSUMING: "was rejected",
    }.get(job.status, "ended in an error")
    return f"job {job.id} {ended} before the run had its result"
