"""Why a request to the OpenAI surface has no answer, as OpenAI's API would say it: pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from api.core.problems import Told
from engine.errors import BudgetExhausted, InvalidField, MetasyncError, UnknownReference
from engine.jobs.job import Failure
from engine.llm import (
    Complaint,
    ModelPaused,
    ProviderError,
    ProviderRefusedKey,
    ProviderTimeout,
    QuotaExhausted,
    RateLimited,
    TransientProviderError,
    UnsupportedParameter,
)


class Unanswered(MetasyncError):
    """`status` and `told` are what the client gets with the text; `retry_after` is in seconds.

    `again` False: the client's SDK is not to try again by itself.
    """

    code = "unanswered"

    def __init__(
        self, text: str, *, status: int, told: Told, retry_after: float | None = None, again: bool = True
    ) -> None:
        super().__init__(text)
        self.status = status
        self.told = told
        self.retry_after = retry_after
        self.again = again


@dataclass(frozen=True, slots=True)
class _Row:
    status: int
    kind: str | None
    code: str
    again: bool = True


_SERVER = "server_error"
_ROWS: Mapping[str, _Row] = {
    UnsupportedParameter.__name__: _Row(400, None, "unsupported_parameter"),
    InvalidField.__name__: _Row(400, None, "invalid_value"),
    UnknownReference.__name__: _Row(404, "not_found_error", "model_not_found"),
    RateLimited.__name__: _Row(429, None, "rate_limit_exceeded"),
    ModelPaused.__name__: _Row(429, None, "rate_limit_exceeded"),
    QuotaExhausted.__name__: _Row(429, "insufficient_quota", "insufficient_quota", again=False),
    BudgetExhausted.__name__: _Row(429, "insufficient_quota", "project_spend_limit_exceeded", again=False),
    ProviderTimeout.__name__: _Row(504, _SERVER, "provider_timeout"),
    TransientProviderError.__name__: _Row(502, _SERVER, "provider_transient"),
    ProviderRefusedKey.__name__: _Row(502, _SERVER, "provider_key_refused", again=False),
}
_OTHER = _Row(502, _SERVER, "provider_error")
_CLIENTS = (400, 413, 422)
"""Statuses by which a vendor says that the request is at fault; others are between Metasync and the vendor."""

_WAITING: Mapping[str, _Row] = {
    "model_paused": _Row(429, None, "rate_limit_exceeded"),
    "budget_exhausted": _Row(429, "insufficient_quota", "project_spend_limit_exceeded", again=False),
}
_NOT_IN_TIME = _Row(503, _SERVER, "not_in_time")
_WAIT_SECONDS = 5.0


def of_failure(failure: Failure) -> Unanswered:
    """What a job in error tells its caller."""
    return _unanswered(failure.error_type, failure.message, failure.status, failure.complaint)


def of_provider_error(error: ProviderError) -> Unanswered:
    """What a stream tells that came to nothing."""
    return _unanswered(type(error).__name__, str(error), error.status, error.complaint)


def _unanswered(error_type: str, text: str, status: int | None, complaint: Complaint | None) -> Unanswered:
    """A vendor's complaint about the request is handed on with its own words for programs."""
    row = _ROWS.get(error_type, _OTHER)
    if row is _OTHER and status in _CLIENTS:
        row = _Row(status, None, "invalid_request")
    param = None if complaint is None else complaint.param
    code = row.code if complaint is None or row.status >= 500 else complaint.code or row.code
    wait = _WAIT_SECONDS if row.again and row.status == 429 else None
    return Unanswered(text, status=row.status, told=Told(row.kind, code, param), retry_after=wait, again=row.again)


def of_waiting(reason: str, text: str) -> Unanswered:
    """What is told where the job could not be done in the time that its caller has: reasons are an Explanation's."""
    row = _WAITING.get(reason, _NOT_IN_TIME)
    wait = _WAIT_SECONDS if row.again else None
    return Unanswered(text, status=row.status, told=Told(row.kind, row.code), retry_after=wait, again=row.again)


def of_cancellation() -> Unanswered:
    return Unanswered("the request was canceled", status=400, told=Told(code="request_canceled"), again=False)
