"""Jobs as they are shown."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from api.models.base import Answer, Resource, resource_to_wire
from api.services.summary import counts, metrics_of, summed
from engine.jobs.job import Attempt, Call, Failure, Job, Lease
from engine.jobs.queue import SummaryRow
from engine.jobs.states import JobState
from engine.llm import JsonObject

Wire = dict[str, Any]


class JobResponse(Resource):
    """All keys are always there. `steps` are the provider calls, `attempts` the times the job was held."""

    job_id: str
    client_id: str
    status: JobState
    operation: str
    prompts: list[str] | None
    working_prompts: list[str] | None
    prompt_flow: str | None = Field(
        description="The flow whose prompts the working prompts were when the job was made."
    )
    canary: str | None = Field(description="The one of the prompts that stands there as a canary of the flow.")
    model: str
    temperature: float
    priority: int
    client_job_id: str | None = Field(alias="id")
    request_data: JsonObject
    response_data: JsonObject | None
    answered_by: str | None = Field(
        description="The model whose call gave the result: the job's, one of its fallbacks, or one that a router chose."
    )
    processing_metrics: JsonObject | None
    client_reference: JsonObject | None
    eval_prompt: str | None
    eval_model: str | None
    evaluator: str | None = Field(description="What scores the answer in place of evalPrompt and evalModel.")
    expected: Any = Field(description="What the evaluator's metrics hold the answer against.")
    meta_prompt: str | None
    meta_model: str | None
    eval_result: JsonObject | None
    suggested_prompt_id: str | None
    error_data: JsonObject | None
    response_format: Any
    endpoint: str | None = Field(
        description="The OpenAI endpoint that the job is a request to; requestData and responseData are its bodies."
    )
    max_attempts: int
    not_before: str | None
    lease: JsonObject | None
    lease_token: int | None
    attempts: list[JsonObject]
    steps: list[JsonObject]


class JobSummaryResponse(Answer):
    pending: int = Field(0, alias="PENDING")
    processing: int = Field(0, alias="PROCESSING")
    processed: int = Field(0, alias="PROCESSED")
    consumed: int = Field(0, alias="CONSUMED")
    error_processing: int = Field(0, alias="ERROR_PROCESSING")
    error_consuming: int = Field(0, alias="ERROR_CONSUMING")
    canceled: int = Field(0, alias="CANCELED")
    total: int = 0
    processing_metrics: JsonObject | None = None


def job_to_wire(job: Job) -> Wire:
    """The fields of JobResponse."""
    prompts = job.working_prompts
    ledger = job.ledger
    return {
        "jobId": job.id,
        "clientId": job.client_id,
        "status": job.status,
        "operation": job.operation,
        "prompts": prompts,
        "workingPrompts": prompts,
        "promptFlow": job.prompt_flow,
        "canary": job.canary,
        "model": job.model,
        "temperature": job.temperature,
        "priority": job.priority,
        "id": job.client_job_id,
        "requestData": job.request_data,
        "responseData": job.response_data,
        "answeredBy": job.answered_by,
        "processingMetrics": metrics_of(job.totals) if job.totals.calls else None,
        "clientReference": job.client_reference,
        "evalPrompt": job.eval_prompt,
        "evalModel": job.eval_model,
        "evaluator": job.evaluator,
        "expected": job.expected,
        "metaPrompt": job.meta_prompt,
        "metaModel": job.meta_model,
        "evalResult": job.eval_result,
        "suggestedPromptId": job.suggested_prompt_id,
        "errorData": failure_to_wire(job.failure),
        "responseFormat": job.response_format,
        "endpoint": job.endpoint,
        "maxAttempts": job.max_attempts,
        "notBefore": job.due_at,
        "lease": lease_to_wire(job.lease),
        "leaseToken": None if job.lease is None else job.token,
        "attempts": [attempt_to_wire(attempt) for attempt in ledger] if ledger else (),
        "steps": [call_to_wire(call, attempt) for attempt in ledger for call in attempt.calls] if ledger else (),
        **resource_to_wire(job),
    }


def failure_to_wire(failure: Failure | None) -> Wire | None:
    if failure is None:
        return None
    return {
        "errorType": failure.error_type,
        "errorMessage": failure.message,
        "attempts": failure.attempts,
        "failedResponseData": failure.raw,
        "timestamp": failure.at,
    }


def lease_to_wire(lease: Lease | None) -> Wire | None:
    return None if lease is None else {"owner": lease.owner, "expiresAt": lease.expires_at}


def attempt_to_wire(attempt: Attempt) -> Wire:
    return {
        "token": attempt.token,
        "owner": attempt.owner,
        "startedAt": attempt.started_at,
        "endedAt": attempt.ended_at,
        "outcome": attempt.outcome,
        "charged": attempt.charged,
        "errorType": attempt.error_type,
        "errorMessage": attempt.error_message,
    }


def call_to_wire(call: Call, attempt: Attempt) -> Wire:
    """`attempt` is the token of the attempt that made the call."""
    return {**step_to_wire(call), "attempt": attempt.token}


def step_to_wire(call: Call) -> Wire:
    """Unknown counts and costs are null; those of an answer that was cut off are a guess."""
    total = None
    if call.input_cost is not None and call.output_cost is not None:
        total = float(call.input_cost) + float(call.output_cost)
    return {
        "step": call.step,
        "model": call.model,
        "startedAt": call.started_at,
        "duration": call.duration,
        "outcome": call.outcome,
        "inputTokens": call.input_tokens,
        "outputTokens": call.output_tokens,
        "totalTokens": None if call.input_tokens is None else call.input_tokens + (call.output_tokens or 0),
        "cachedInputTokens": call.cached_input_tokens,
        "reasoningTokens": call.reasoning_tokens,
        "inputCost": None if call.input_cost is None else float(call.input_cost),
        "outputCost": None if call.output_cost is None else float(call.output_cost),
        "totalCost": total,
        "currency": call.currency,
        "errorType": call.error_type,
        "requestId": call.request_id,
    }


def summary_to_wire(rows: Sequence[SummaryRow]) -> Wire:
    """The fields of JobSummaryResponse."""
    return {**counts(rows), "processingMetrics": summed(rows)}
