"""How an error is written: natively, and under /v1 as OpenAI's API does, for the clients that are made for that.

OpenAI's body is {"error": {"message", "type", "param", "code"}}, all four always there (components/schemas/Error of
OpenAI's openapi.yaml); its SDK chooses the class of its exception by the status alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

from api.core.answers import Json

OPENAI_PREFIX = "/v1/"
ANTHROPIC_PREFIX = "/v1/messages"


@dataclass(frozen=True, slots=True)
class Told:
    """What OpenAI's body says beside the message. `kind` is its `type`; None: as the status suggests."""

    kind: str | None = None
    code: str | None = None
    param: str | None = None


_KINDS: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
_CODES: Mapping[int, str] = {404: "unknown_url", 405: "method_not_allowed", 413: "request_too_large"}
"""Of errors that come from the frameworks, which only know a status."""


def is_openai(scope: Scope) -> bool:
    """Whether the request is one to the OpenAI surface."""
    return bool(scope["path"].startswith(OPENAI_PREFIX))


def problem(
    scope: Scope, status: int, detail: Any, *, headers: Mapping[str, str] | None = None, told: Told | None = None
) -> Json:
    """The answer to a request that failed. `detail` is a text, or a list of a validation's problems."""
    if not is_openai(scope):
        return Json({"detail": detail}, status_code=status, headers=dict(headers or {}))
    if scope["path"].startswith(ANTHROPIC_PREFIX):
        return Json(anthropic_error(status, detail, told), status_code=status, headers=dict(headers or {}))
    return Json({"error": openai_error(status, detail, told)}, status_code=status, headers=dict(headers or {}))


def openai_error(status: int, detail: Any, told: Told | None = None) -> dict[str, Any]:
    """The object under `error`, which streams send alone."""
    told = told or Told(code=_CODES.get(status))
    message, param = _first(detail) if isinstance(detail, list) else (str(detail), None)
    kind = told.kind or _KINDS.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    return {"message": message, "type": kind, "param": told.param or param, "code": told.code}


_ANTHROPIC_KINDS: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def anthropic_error(status: int, detail: Any, told: Told | None = None) -> dict[str, Any]:
    """Anthropic's body: what its SDK prints, which chooses the class of its exception by the status alone.

    Source: the error types of anthropics/anthropic-sdk-python 2.14.
    """
    told = told or Told()
    message = _first(detail)[0] if isinstance(detail, list) else str(detail)
    kind = _ANTHROPIC_KINDS.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    if told.kind == "insufficient_quota":
        kind = "billing_error"
    return {"type": "error", "error": {"type": kind, "message": message}}


def _first(problems: Sequence[Mapping[str, Any]]) -> tuple[str, str | None]:
    """The message and the field of the first of a validation's problems, which name all that they say."""
    if not problems:
        return "the request is not valid", None
    if problems[0]["type"] == "json_invalid":
        return f"the body is no JSON: {problems[0]['msg']}, at position {problems[0]['loc'][-1]}", None
    place = _field(problems[0]["loc"])
    more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
    return f"{place or 'the body'}: {problems[0]['msg']}{more}", place or None


def _field(loc: Sequence[str | int]) -> str:
    """`("body", "messages", 2, "role")` as `messages[2].role`; nothing for the body itself."""
    field = ""
    for part in loc[1:]:
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else part
    return field
