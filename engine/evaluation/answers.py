"""Answers and what is expected of them, as texts, as JSON, and by field."""

import math
import re
from collections.abc import Iterator
from typing import Any

import orjson

from utilities.json_repair import strict_json

_NUMBER = re.compile(r"(?:(?<!\w)[-+])?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,4})?")
_LONGEST_SHOWN = 200

MISSING = object()
"""Of a path that leads nowhere."""


def answer_of(response: Any) -> Any:
    """What a job's responseData stands for: the text of {"text": …}, the value of {"value": …}, else all of it."""
    if isinstance(response, dict) and len(response) == 1:
        [(key, value)] = response.items()
        if key == "value" or (key == "text" and isinstance(value, str)):
            return value
    return response


def as_text(value: Any) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


def as_json(value: Any) -> Any:
    """A text that is JSON as its value, anything else as it is. Raises ValueError for a text that is none."""
    return strict_json(value) if isinstance(value, str) else value


Steps = tuple[str, ...]
"""The way to a field: names of fields and places in lists, in which dots are letters like others."""


def at(value: Any, path: str | None) -> Any:
    """What lies at a dotted path, list places by their number; MISSING where it leads nowhere. None: `value` itself."""
    return value if path is None else along(value, tuple(path.split(".")))


def along(value: Any, steps: Steps) -> Any:
    """What lies at the end of `steps`; MISSING where they lead nowhere."""
    found = _parsed(value) if steps else value
    for step in steps:
        found = _child(found, step)
    return found


def _parsed(value: Any) -> Any:
    try:
        return as_json(value)
    except ValueError:
        return value


def _child(value: Any, part: str) -> Any:
    if isinstance(value, dict):
        return value.get(part, MISSING)
    if isinstance(value, list) and part.isdecimal() and len(part) < 10 and int(part) < len(value):
        return value[int(part)]
    return MISSING


def leaves(value: Any, steps: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    """What has no fields of its own, with the way to it: scalars, and lists and objects that are empty."""
    branches: Iterator[tuple[Any, Any]] | None = None
    if isinstance(value, dict) and value:
        branches = iter(value.items())
    elif isinstance(value, list) and value:
        branches = iter(enumerate(value))
    if branches is None:
        yield steps, value
        return
    for key, child in branches:
        yield from leaves(child, (*steps, str(key)))


def number_of(value: Any) -> float | None:
    """A finite number, or the last one in a text; thousands may be set apart by commas."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _finite(value)
    found = _NUMBER.findall(value) if isinstance(value, str) else []
    return _finite(found[-1].replace(",", "")) if found else None


def _finite(value: int | float | str) -> float | None:
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if math.isfinite(number) else None


def same(first: Any, second: Any) -> bool:
    """JSON equality: 1 equals 1.0, and true does not equal 1."""
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def shown(value: Any) -> str:
    """For feedback: cut where it is long."""
    if value is MISSING:
        return "nothing"
    text = as_text(value) if not isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
