"""How a model does now, as it is shown."""

from typing import Any, Literal

from pydantic import Field

from api.models.base import Answer
from engine.records.control import Latencies, ModelState
from engine.records.values import Model


class LatencyModel(Answer):
    p50: float
    p95: float
    p99: float


class ModelStatusResponse(Answer):
    """`inFlight`, `waiting`, `window`, `breaker`, `errorRate` and `latency` are of the replica that answers; pauses and
    bookings are common to all."""

    model_id: str = Field(alias="model_id")
    name: str
    state: Literal["open", "paused"]
    reason: str | None = Field(description="Why it is paused: requests, tokens, rate_limit, quota or breaker.")
    paused_until: str | None
    text: str | None = Field(description="The reason in words, the vendor's where it gave one.")
    in_flight: int
    waiting: int = Field(description="Claimed jobs that wait for a place.")
    window: int | None = Field(description="How many calls may be in flight; null: nothing bounds them.")
    requests_booked_until: str | None = Field(description="How far requestsPerMinute is used up in advance.")
    tokens_booked_until: str | None
    breaker: Literal["closed", "open", "half-open"]
    error_rate: float = Field(description="The share of the calls of the last 30 seconds that failed.")
    latency: LatencyModel | None = Field(description="Seconds, of the last 256 calls that ended well.")
    would_try: list[str] = Field(description="The models in whose order a job that names this one would be tried now.")
    replica: str


def model_status_to_wire(model: Model, state: ModelState) -> dict[str, Any]:
    """The fields of ModelStatusResponse."""
    pause = state.pause
    return {
        "model_id": model.id,
        "name": model.name,
        "state": "open" if pause is None else "paused",
        "reason": None if pause is None else pause.reason,
        "pausedUntil": None if pause is None else pause.until,
        "text": None if pause is None else pause.text,
        "inFlight": state.in_flight,
        "waiting": state.waiting,
        "window": state.window,
        "requestsBookedUntil": state.requests_booked_until,
        "tokensBookedUntil": state.tokens_booked_until,
        "breaker": state.breaker,
        "errorRate": round(state.error_rate, 4),
        "latency": _latency_to_wire(state.latencies),
        "wouldTry": state.would_try,
        "replica": state.replica,
    }


def _latency_to_wire(latencies: Latencies | None) -> dict[str, float] | None:
    return None if latencies is None else {"p50": latencies.p50, "p95": latencies.p95, "p99": latencies.p99}
