"""JSON from texts that are almost JSON, as language models write it."""

import re
from typing import Any

import orjson

from utilities.json_depth import may_be_too_deep, too_deep

_FENCED = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL | re.IGNORECASE)
# An opening that can be JSON. In the middle of words a list must show more: footnotes look like [1].
_OPENING = re.compile(
    r"""\A\s*\[|\[\s*["'{\[]|\{\s*(?:["'}]|[A-Za-z_]\w*\s*:)""",
)


def strict_json(text: str) -> Any:
    """The value of a text that is JSON, with at most blanks or one code fence around it. Raises ValueError."""
    text = text.strip().lstrip("\ufeff")
    fenced = _FENCED.fullmatch(text) if text.startswith("```") else None
    value = orjson.loads(text if fenced is None else fenced[1])
    if may_be_too_deep(text) and too_deep(value):
        raise ValueError("the JSON is nested too deeply")
    return value


def repaired_json(text: str) -> Any:
    """The object or list in a text that is nearly JSON or has words around it. Raises ValueError where there is none.

    Slow (pure Python) for long texts. Words alone are never taken for a value.
    """
    import json_repair  # noqa: PLC0415 - only needed for answers that are broken

    candidate = _candidate(text)
    try:
        value = json_repair.loads(candidate)
        # Round it once, so that what cannot be written (numbers beyond 64 bits, half characters) is refused here.
        written = orjson.loads(orjson.dumps(value))
    except (RecursionError, ValueError, IndexError, TypeError) as error:
        raise ValueError("the text cannot be repaired into JSON") from error
    if not isinstance(written, dict | list) or not written or too_deep(written):
        raise ValueError("the text cannot be repaired into JSON")
    return written


def _candidate(text: str) -> str:
    """The part to repair: the only code block that opens like JSON, else all from the first such opening."""
    blocks = [block for block in _FENCED.findall(text) if _OPENING.search(block)]
    chosen: str = blocks[0] if len(blocks) == 1 else text
    opening = _OPENING.search(chosen)
    if opening is None:
        raise ValueError("no JSON object or list in the text")
    return chosen[opening.start() :]
