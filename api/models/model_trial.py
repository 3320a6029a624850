"""What a model's trial came to, as it is shown."""

from typing import Any

from pydantic import Field

from api.models.base import Answer
from engine.llm import Completion, ProviderError, Usage, cost_of_usage
from engine.records.control import Trial
from engine.records.values import Model

_LONGEST_RAW = 2000


class ModelTestResponse(Answer):
    """Either a text came (`ok`), or an error's type and message say why not; what is not known is null."""

    ok: bool
    model: str
    sdk: str
    deployment: str
    duration: float = Field(description="Seconds, looking up the key and preparing the provider included.")
    called: list[str] = Field(description="The models that were called; several where a router was tried.")
    answered_by: str | None = Field(description="The last of them, if a text came.")
    text: str | None
    finish_reason: str | None
    request_id: str | None = Field(description="What the vendor's support asks for.")
    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    cached_input_tokens: int | None
    reasoning_tokens: int | None
    input_cost: float | None
    output_cost: float | None
    total_cost: float | None
    currency: str | None
    error_type: str | None
    error_message: str | None
    error_status: int | None = Field(description="The vendor's HTTP status, if it answered at all.")
    retry_after: float | None = Field(description="Seconds that the vendor asks to wait.")
    raw: str | None = Field(description="The beginning of the vendor's answer, if it could not be used.")


def trial_to_wire(model: Model, trial: Trial) -> dict[str, Any]:
    """The fields of ModelTestResponse."""
    completion = trial.completion
    failed = trial.error if isinstance(trial.error, ProviderError) else None
    wait = failed.retry_after if failed else None
    told = completion or failed
    return {
        "ok": completion is not None,
        "model": model.name,
        "sdk": model.sdk,
        "deployment": model.deployment,
        "duration": trial.duration,
        "called": [each.name for each in trial.called],
        "answeredBy": trial.called[-1].name if completion and trial.called else None,
        **_text(completion),
        "requestId": told.request_id if told else None,
        **_used(told.usage if told else None, trial.called[-1] if trial.called else model),
        "errorType": type(trial.error).__name__ if trial.error else None,
        "errorMessage": str(trial.error) if trial.error else None,
        "errorStatus": failed.status if failed else None,
        "retryAfter": None if wait is None else wait.total_seconds(),
        "raw": failed.raw[:_LONGEST_RAW] if failed and failed.raw else None,
    }


def _text(completion: Completion | None) -> dict[str, Any]:
    if completion is None:
        return {"text": None, "finishReason": None}
    return {"text": completion.text, "finishReason": completion.finish_reason}


def _used(usage: Usage | None, model: Model) -> dict[str, Any]:
    if usage is None:
        counts = ("inputTokens", "outputTokens", "totalTokens", "cachedInputTokens", "reasoningTokens")
        return dict.fromkeys((*counts, "inputCost", "outputCost", "totalCost", "currency"))
    cost = cost_of_usage(usage, model.prices)
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens,
        "cachedInputTokens": usage.cached_input_tokens,
        "reasoningTokens": usage.reasoning_tokens,
        "inputCost": float(cost.input),
        "outputCost": float(cost.output),
        "totalCost": float(cost.input) + float(cost.output),
        "currency": cost.currency,
    }
