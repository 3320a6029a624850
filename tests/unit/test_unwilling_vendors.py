"""How vendors say that they will not answer, where it looks like something else."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from engine.llm import (
    AnswerCutOff,
    Completion,
    ContentFiltered,
    Endpoint,
    PermanentProviderError,
    ProviderError,
    ProviderRefusedKey,
    TransientProviderError,
    UnusableAnswer,
    Usage,
)
from llm_workers.providers.chat_answers import chat_completion
from llm_workers.providers.faults import refused
from llm_workers.providers.http import HttpProvider
from llm_workers.providers.registry import Registry
from tests.support.vendors import KEY, asked, chatted

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _error(status: int, **error: Any) -> ProviderError:
    return refused(status, {}, orjson.dumps({"error": error}), sdk="X", key=KEY, now=NOW)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"code": "content_filter", "param": "prompt", "message": "filtered by our policy"}, ContentFiltered),
        (400, {"code": "invalid_prompt", "message": "Your prompt was flagged."}, ContentFiltered),
        (
            400,
            {"type": "invalid_request_error", "message": "Blocked by content filtering policy"},
            ContentFiltered,
        ),
        (403, {"code": 403, "message": "It requires moderation. Your input was flagged for x."}, ContentFiltered),
        (403, {"code": 403, "message": "Content violates usage guidelines. Failed check: X"}, ContentFiltered),
        (403, {"code": 403, "message": "Your key may not do this."}, ProviderRefusedKey),
        (400, {"code": "invalid_request_error", "message": "unknown model"}, PermanentProviderError),
        (500, {"code": "content_filter", "message": "the filter is down"}, TransientProviderError),
    ],
)
def test_a_question_that_is_filtered(status: int, error: dict[str, Any], kind: type[ProviderError]) -> None:
    """It is told from a wrong request and from a key that is not allowed; a filter that is out of order is neither."""
    problem = _error(status, **error)

    assert type(problem) is kind
    assert problem.status == status
    assert error["message"] in (problem.raw or "")


def _gemini(**document: Any) -> ProviderError:
    provider = Registry().create("Gemini")
    assert isinstance(provider, HttpProvider)
    used = {"promptTokenCount": 5, "candidatesTokenCount": 2}
    with pytest.raises(ProviderError) as failed:
        provider.read({**document, "usageMetadata": used}, asked(Endpoint(sdk="Gemini", base_url="", deployment="m")))
    return failed.value


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("SAFETY", ContentFiltered),
        ("RECITATION", ContentFiltered),
        ("MODEL_ARMOR", ContentFiltered),
        ("MAX_TOKENS", AnswerCutOff),
        ("CONTINUATION", AnswerCutOff),
        ("MALFORMED_RESPONSE", TransientProviderError),
        ("OTHER", UnusableAnswer),
        ("MALFORMED_FUNCTION_CALL", UnusableAnswer),
        ("A_REASON_OF_NEXT_YEAR", UnusableAnswer),
    ],
)
def test_how_gemini_ends(reason: str, kind: type[ProviderError]) -> None:
    """Only filters are called filters; each ending names its reason or class, is paid for and keeps its text."""
    problem = _gemini(candidates=[{"content": {"parts": [{"text": "so far"}]}, "finishReason": reason}])

    assert type(problem) is kind
    assert kind is AnswerCutOff or reason in str(problem)
    assert problem.usage == Usage(input_tokens=5, output_tokens=2)
    assert problem.raw == "so far"


def test_a_prompt_that_gemini_blocks() -> None:
    """It is a filter's doing, and the reason is named."""
    problem = _gemini(promptFeedback={"blockReason": "JAILBREAK"})

    assert type(problem) is ContentFiltered
    assert "JAILBREAK" in str(problem)


def _chatted(reason: str | None, **document: Any) -> Completion:
    provider = Registry().create("Gemini")
    assert isinstance(provider, HttpProvider)
    candidates = [] if reason is None else [{"content": {"parts": [{"text": "so far"}]}, "finishReason": reason}]
    request = chatted(Endpoint(sdk="Gemini", base_url="", deployment="m"))
    return chat_completion(provider.chat_answer({"candidates": candidates, **document}, request, NOW))


def test_how_gemini_ends_a_chat() -> None:
    """Filters and limits are answers; what Gemini could not end is as bad as elsewhere."""
    assert _chatted("SAFETY").finish_reason == "content_filter"
    assert _chatted("MAX_TOKENS").finish_reason == "length"
    assert _chatted("STOP").text == "so far"
    assert _chatted(None, promptFeedback={"blockReason": "JAILBREAK"}).finish_reason == "content_filter"
    for reason, kind in (("MALFORMED_RESPONSE", TransientProviderError), ("OTHER", UnusableAnswer)):
        with pytest.raises(kind, match=reason):
            _chatted(reason)
