"""Optimization runs: bodies in and out."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from api.models.base import Answer, Resource, StrictBody, resource_to_wire
from api.models.job import Object, Priority, Prompts, Temperature, Text
from api.models.searches import CombinationResult, RunBudgetResult, SearchFields, SearchResult, search_to_wire
from api.models.waiting import WaitingFor, waiting_to_wire
from api.services.summary import metrics_of
from api.services.waits import Waiting
from engine.records.canaries import MOST_SHARE
from engine.records.runs import Iteration, ModelRun, Run, RunStatus
from engine.records.searches import Promotion

MOST_ITERATIONS = 2_000
"""Of all models together: more would not fit into one record."""

Wire = dict[str, Any]
Name = Annotated[Text, Field(min_length=1)]


class RunCreateRequest(SearchFields):
    """Implements api.services.runs.RunDraft. With `dataset` the first prompt is searched from, and others follow it."""

    initial_working_prompt_ids: Annotated[Prompts, Field(min_length=1)]
    eval_prompt_id: Name
    eval_model: Name
    meta_prompt_id: Name
    meta_model: Name
    working_models: Annotated[Prompts, Field(min_length=1)]
    max_iterations: int = Field(ge=1, le=100)
    temperature: Temperature = 0.7
    priority: Priority = 100
    request_data: Object

    @model_validator(mode="after")
    def _fits(self) -> "RunCreateRequest":
        if len(self.working_models) * self.max_iterations > MOST_ITERATIONS:
            raise ValueError(f"workingModels times maxIterations are more than {MOST_ITERATIONS} iterations")
        if misplaced := self.misplaced():
            raise ValueError(f"{', '.join(misplaced)}: of no meaning without dataset")
        return self


class PromoteRequest(StrictBody):
    """Where the winner is to be tried out, and on which share of the jobs, before it is published for all."""

    prompt_flow: Name
    share: Annotated[float, Field(gt=0, le=MOST_SHARE)]


class ProcessingMetrics(Answer):
    """Costs are absent where calls were priced in several currencies."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    duration: float = 0.0
    input_cost: float = 0.0
    output_cost: float = 0.0
    total_cost: float = 0.0
    currency: str = "USD"


class IterationResult(Answer):
    iteration: int
    job_id: str
    working_prompt_id: str
    status: str
    eval_result: dict[str, Any] | None = None
    suggested_prompt_id: str | None = None
    processing_metrics: ProcessingMetrics | None = None


class ModelRunResult(Answer):
    """The iterations of one working model."""

    model: str
    iterations: list[IterationResult] = Field(default_factory=list)
    processing_metrics: ProcessingMetrics | None = None


class RunResponse(Resource):
    """`spent` is what calls took by their role: work, eval, meta; `processingMetrics` all of it.

    `waitsFor` is told of a single run, not in lists: what keeps its jobs from being taken, also that no worker would.
    """

    run_id: str
    client_id: str
    status: RunStatus
    initial_working_prompt_ids: list[str]
    eval_prompt_id: str
    eval_model: str
    meta_prompt_id: str
    meta_model: str
    working_models: list[str]
    max_iterations: int
    temperature: float
    priority: int
    request_data: dict[str, Any]
    current_model_index: int = 0
    current_iteration: int = 0
    current_job_id: str | None = None
    failure_reason: str | None = None
    model_runs: list[ModelRunResult] = Field(default_factory=list)
    processing_metrics: ProcessingMetrics | None = None
    spent: dict[str, ProcessingMetrics]
    dataset: str | None
    evaluator: str | None
    strategy: dict[str, Any] | None
    split: dict[str, Any] | None
    seed: int | None
    budget: RunBudgetResult | None
    target: float | None
    patience: int | None
    model_combinations: list[CombinationResult] | None
    reference_judge: str | None
    promote: Promotion | None
    min_gain: float | None
    max_parallel: int | None
    force: bool | None
    search: SearchResult | None
    waits_for: WaitingFor | None = None


def run_to_wire(run: Run, waits: Waiting | None = None) -> Wire:
    """The fields of RunResponse."""
    return {
        "runId": run.id,
        "clientId": run.client_id,
        "status": run.status,
        "initialWorkingPromptIds": run.initial_prompt_ids,
        "evalPromptId": run.eval_prompt_id,
        "evalModel": run.eval_model,
        "metaPromptId": run.meta_prompt_id,
        "metaModel": run.meta_model,
        "workingModels": run.working_models,
        "maxIterations": run.max_iterations,
        "temperature": run.temperature,
        "priority": run.priority,
        "requestData": run.request_data,
        "currentModelIndex": run.current_model_index,
        "currentIteration": run.current_iteration,
        "currentJobId": run.current_job_id,
        "failureReason": run.failure_reason,
        "modelRuns": [_model_run_to_wire(each) for each in run.model_runs],
        "processingMetrics": metrics_of(run.totals),
        "spent": {role: metrics_of(totals) for role, totals in run.spent.items()},
        **search_to_wire(run),
        "waitsFor": waiting_to_wire(waits),
        **resource_to_wire(run),
    }


def _model_run_to_wire(each: ModelRun) -> Wire:
    return {
        "model": each.model,
        "iterations": [_iteration_to_wire(iteration) for iteration in each.iterations],
        "processingMetrics": metrics_of(each.totals),
    }


def _iteration_to_wire(iteration: Iteration) -> Wire:
    return {
        "iteration": iteration.number,
        "jobId": iteration.job_id,
        "workingPromptId": iteration.working_prompt_id,
        "status": iteration.status,
        "evalResult": iteration.eval_result,
        "suggestedPromptId": iteration.suggested_prompt_id,
        "processingMetrics": metrics_of(iteration.totals),
    }
