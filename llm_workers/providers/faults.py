"""The border to the vendors: HTTP answers and transport errors in, the ProviderError family out, in this one file.

Sources: OpenAI's guide to error codes; Anthropic's API errors; Google's google.rpc.Status; RFC 9110 (Retry-After);
Azure's retry-after-ms.
"""

import math
import re
from collections.abc import Mapping, Set
from datetime import datetime, timedelta
from typing import Any, NoReturn
from urllib.parse import quote

import orjson

from engine.llm import (
    Complaint,
    ContentFiltered,
    PermanentProviderError,
    ProviderError,
    ProviderRefusedKey,
    ProviderTimeout,
    QuotaExhausted,
    RateLimited,
    Timeouts,
    TransientProviderError,
)
from llm_workers.providers.limit_headers import http_date, sent_at

RAW_LIMIT = 64 * 1024
_MESSAGE_LIMIT = 500
_WORD_LIMIT = 200
_LONGEST_WAIT = timedelta(days=1)
_QUOTA_CODES = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_hard_limit_reached",
        "billing_not_active",
        "billing_error",
        "insufficient_balance",
    }
)
_QUOTA_TEXT = re.compile(r"credit balance is too low|insufficient (balance|credits)|used all available credits", re.I)
# A filter that stops the question answers as if the request were wrong: Azure and OpenAI by a code, Anthropic in words;
# OpenRouter and xAI in words and as 403, as if the key were not allowed.
_FILTER_CODES = frozenset({"content_filter", "content_policy_violation", "invalid_prompt"})
_FILTER_TEXT = re.compile(r"content filtering policy|violates usage guidelines|input was flagged", re.I)
# Anthropic's and OpenAI's types of errors, in streams where there is no status any more.
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "overloaded_error": 529,
}
_REFUSAL_CODES = frozenset({"unsupported_value", "unsupported_parameter", "unknown_parameter"})
_REFUSAL_TEXT = re.compile(r"(n't|not) support|unsupported|unknown|unrecognized|extra.(inputs|forbidden)", re.I)
_SPELLINGS = {"response_format": r"response[_ ]format|json_schema|json_object"}
_SCHEMA_FAULT = re.compile(r"schema for", re.I)
# Google calls every limit a quota; only those that last the day are one here.
_DAILY = "perday"
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)s")


def lost_call(error: Exception, host: str, timeouts: Timeouts, *, answering: bool) -> ProviderError:
    """What the transport's `error` means. `answering`: the answer's head had come, the body had not."""
    if isinstance(error, TimeoutError):
        return _too_late(error, host, timeouts, answering=answering)
    import aiohttp  # noqa: PLC0415 - slow to import, and loaded already where this is called

    if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
        return PermanentProviderError(f"no trusted TLS connection to {host}", sent=False)
    if isinstance(error, aiohttp.ClientConnectorError):
        return TransientProviderError(f"{host} cannot be reached: {error.os_error.strerror or 'no route'}", sent=False)
    if isinstance(error, ValueError):
        return PermanentProviderError("the endpoint or the key cannot be put into an HTTP request", sent=False)
    if isinstance(error, aiohttp.ClientResponseError):
        _forget_request(error)
    when = "in the middle of the answer" if answering else "before the answer came"
    return TransientProviderError(f"the connection to {host} was lost {when}")


def _too_late(error: TimeoutError, host: str, timeouts: Timeouts, *, answering: bool) -> ProviderTimeout:
    import aiohttp  # noqa: PLC0415 - as above

    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return ProviderTimeout(f"no connection to {host} within {timeouts.connect:g} s (connect timeout)", sent=False)
    if isinstance(error, aiohttp.SocketTimeoutError):
        which = "idle timeout in the middle of the answer" if answering else "first-byte timeout"
        return ProviderTimeout(f"nothing came from {host} for {timeouts.read:g} s ({which})")
    return ProviderTimeout(f"{host} had not finished after {timeouts.total:g} s (total timeout)")


def _forget_request(error: Any) -> None:
    """The request's headers hold the key, and this error shows them in its repr."""
    error.request_info = error.request_info._replace(headers={})
    error.headers = None
    error.args = ()


def refused(
    status: int, headers: Mapping[str, str], body: bytes, *, sdk: str, key: str | None, now: datetime
) -> ProviderError:
    """The error that an answer other than 2xx stands for. The key appears in none of its texts."""
    document = document_of(body)
    words = _words(document)
    message = cleaned(_message(document) or f"HTTP {status}", key)[:_MESSAGE_LIMIT]
    wait = retry_after(headers, now)
    return _class_of(status, words, message)(
        f"{sdk} answered {status}: {message}",
        status=status,
        retry_after=_delay_in(document) if wait is None else wait,
        raw=raw_text(body, key),
        request_id=request_id(headers),
        complaint=_complaint(document, key),
    )


def _complaint(document: Any, key: str | None) -> Complaint | None:
    """What the vendor says in the fields of OpenAI's errors; a number is a status, not a code."""
    error = _error(document)
    told = {
        name: cleaned(error[name], key)[:_WORD_LIMIT]
        for name in ("type", "code", "param")
        if isinstance(error.get(name), str)
    }
    return Complaint(**told) if told else None


def _class_of(status: int, words: frozenset[str], message: str) -> type[ProviderError]:
    if 400 <= status < 500 and (words & _FILTER_CODES or _FILTER_TEXT.search(message)):
        return ContentFiltered
    if status == 402 or words & _QUOTA_CODES or (400 <= status < 500 and _QUOTA_TEXT.search(message)):
        return QuotaExhausted
    if status == 429:
        return QuotaExhausted if any(_DAILY in word for word in words) else RateLimited
    if status in (401, 403) or "api_key_invalid" in words:
        return ProviderRefusedKey
    if status in (408, 409, 425) or status >= 500:
        return TransientProviderError
    return PermanentProviderError


def failed_midway(
    document: Any, headers: Mapping[str, str], data: bytes, *, sdk: str, key: str | None, now: datetime
) -> ProviderError:
    """The error that an event or answer stands for which says, after a status 200, that something went wrong."""
    error = _error(document)
    code = error.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else _STATUS_OF_TYPE.get(str(error.get("type")), 500)
    return refused(status, headers, data, sdk=sdk, key=key, now=now)


def unreadable(status: int, headers: Mapping[str, str], body: bytes, *, sdk: str, key: str | None) -> ProviderError:
    """An answer 200 whose body is not the JSON it should be: cut off, or from something in between."""
    return TransientProviderError(
        f"{sdk} answered {status} with something that is not the JSON it should be",
        status=status,
        raw=raw_text(body, key),
        request_id=request_id(headers),
    )


def sdk_unusable(error: Exception, sdk: str) -> NoReturn:
    """Raises what an SDK's failure to prepare a request means. Its text is left out: it may quote what it was given."""
    if isinstance(error, ImportError):
        raise PermanentProviderError(f"{sdk}: the vendor's package cannot be imported ({error.name})", sent=False)
    reason = type(error).__name__
    raise PermanentProviderError(f"{sdk}: the endpoint's settings were refused by the SDK ({reason})", sent=False)


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """How long the vendor asks to wait: retry-after-ms, Retry-After in seconds, or as an HTTP date; at most a day."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _bounded(timedelta(milliseconds=milliseconds))
    text = headers.get("Retry-After")
    seconds = _number(text)
    if seconds is not None:
        return _bounded(timedelta(seconds=seconds))
    until = http_date(text)
    return None if until is None else _bounded(until - sent_at(headers, now))


def _bounded(wait: timedelta) -> timedelta:
    return min(max(wait, timedelta(0)), _LONGEST_WAIT)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return min(max(number, 0.0), 1e9) if math.isfinite(number) else None


def _delay_in(document: Any) -> timedelta | None:
    """Google says it in the body: {"error": {"details": [{"retryDelay": "27s"}]}}."""
    for detail in _details(document):
        match = _SECONDS.fullmatch(str(detail.get("retryDelay")))
        if match:
            return _bounded(timedelta(seconds=float(match[1])))
    return None


def document_of(body: bytes) -> Any:
    """The body as JSON, None where it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def unwanted_parameter(status: int, body: bytes, sent: Set[str]) -> str | None:
    """Which of the parameters that were `sent` an answer refuses as such; None where it complains of anything else.

    OpenAI says it by a code; compatible servers by FastAPI's `extra_forbidden`, or in words alone.
    """
    if status not in (400, 422):
        return None
    document = document_of(body)
    error = _error(document)
    if error.get("code") in _REFUSAL_CODES and error.get("param") in sent:
        return str(error["param"])
    text = _message(document)
    if not _REFUSAL_TEXT.search(text) or _SCHEMA_FAULT.search(text):
        return None
    return next((name for name in sorted(sent) if re.search(_SPELLINGS.get(name, rf"\b{name}\b"), text)), None)


def _error(document: Any) -> Mapping[str, Any]:
    inner = document[0] if isinstance(document, list) and document else document
    error = inner.get("error", inner) if isinstance(inner, dict) else None
    if isinstance(error, str):
        return {"message": error, "code": inner.get("code")}
    return error if isinstance(error, dict) else {}


def _details(document: Any) -> list[Mapping[str, Any]]:
    details = _error(document).get("details")
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []


def _words(document: Any) -> frozenset[str]:
    """The vendor's codes for what happened, in lower case: its own, and the reasons and quotas of Google's details."""
    error = _error(document)
    words = [error.get("code"), error.get("type"), error.get("status")]
    for detail in _details(document):
        words.append(detail.get("reason"))
        violations = detail.get("violations")
        words += [each.get("quotaId") for each in violations or () if isinstance(each, dict)]
    return frozenset(str(word).lower() for word in words if word)


def _message(document: Any) -> str:
    error = _error(document)
    return str(error.get("message") or error.get("detail") or "")


def cleaned(text: str, key: str | None) -> str:
    """`text` without the key: vendors quote it when they refuse it."""
    for form in {key, quote(key, safe="")} if key else ():
        text = text.replace(form, "[key]")
    return text


def raw_text(body: bytes, key: str | None) -> str:
    """The body as text, bounded, without the key."""
    return cleaned(body[: RAW_LIMIT + len(key or "")].decode("utf-8", "replace"), key)[:RAW_LIMIT]


def request_id(headers: Mapping[str, str]) -> str | None:
    """What the vendor's support asks for."""
    for name in ("x-request-id", "request-id", "apim-request-id"):
        if name in headers:
            return headers[name][:200]
    return None
