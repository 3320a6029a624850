"""How Gemini ends an answer, and what it counts. google.genai.types.FinishReason says what each reason means."""

from engine.llm import JsonObject, Usage
from llm_workers.providers.chat_answers import count

FILTERED = frozenset(
    {
        "BLOCKLIST",
        "ESCALATION",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "IMAGE_SAFETY",
        "LANGUAGE",
        "MODEL_ARMOR",
        "PROHIBITED_CONTENT",
        "RECITATION",
        "SAFETY",
        "SPII",
    }
)
BROKEN_OFF = frozenset({"MALFORMED_RESPONSE"})
CUT_OFF = frozenset({"MAX_TOKENS", "CONTINUATION"})
GOOD_ENDS = frozenset({None, "STOP", "FINISH_REASON_UNSPECIFIED"})


def usage_of(usage: JsonObject) -> Usage:
    """Google counts thoughts beside the candidates' tokens, and bills both as output."""
    thoughts = count(usage.get("thoughtsTokenCount"))
    return Usage(
        input_tokens=count(usage.get("promptTokenCount")),
        output_tokens=count(usage.get("candidatesTokenCount")) + thoughts,
        cached_input_tokens=count(usage.get("cachedContentTokenCount")),
        reasoning_tokens=thoughts,
    )
