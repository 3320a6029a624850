"""What each kind of metric is told. Unknown parameters are refused: a typo would change scores unnoticed."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.evaluation.values import Metric, MetricKind
from engine.llm import JsonObject

LONGEST_TEXT = 20_000
"""Characters of a pattern, an expression or a rubric."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """`told` says what is accepted."""

    accepts: Callable[[Any], bool]
    told: str
    required: bool = False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_TEXT


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= 1_000 and all(map(_is_text, value))


def _is_scale(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)) and value[0] < value[1]


def _one_of(*allowed: str) -> Parameter:
    return Parameter(lambda value: value in allowed, " or ".join(allowed))


_ANYTHING = Parameter(lambda _: True, "any JSON")
_FLAG = Parameter(lambda value: isinstance(value, bool), "true or false")
_FIELD = Parameter(_is_text, "a dotted path into the output, such as answer.label")
_AMOUNT = Parameter(lambda value: _is_number(value) and value >= 0, "a number from 0")
_COUNT = Parameter(_is_count, "a whole number from 0")
_PATHS = Parameter(_are_texts, "a list of dotted paths")
_SCALE = Parameter(_is_scale, "the least and the greatest score, such as [0, 10]")
_TEMPERATURE = Parameter(lambda value: _is_number(value) and 0 <= value <= 2, "a number from 0 to 2")
_SHORT_TEXT = f"a text of at most {LONGEST_TEXT} characters"


def _text(*, required: bool) -> Parameter:
    return Parameter(_is_text, _SHORT_TEXT, required)


_JUDGE: Mapping[str, Parameter] = {
    "model": Parameter(_is_text, "the name of a model", required=True),
    "rubric": _text(required=False),
    "prompt": _text(required=False),
    "temperature": _TEMPERATURE,
}
PARAMETERS: Mapping[MetricKind, Mapping[str, Parameter]] = {
    MetricKind.EXACT: {"field": _FIELD, "value": _ANYTHING, "ignoreCase": _FLAG, "trim": _FLAG},
    MetricKind.CONTAINS: {
        "field": _FIELD,
        "value": Parameter(lambda value: _is_text(value) or _are_texts(value), "a text or a list of texts"),
        "ignoreCase": _FLAG,
        "absent": _FLAG,
        "mode": _one_of("all", "any"),
    },
    MetricKind.REGEX: {
        "field": _FIELD,
        "pattern": _text(required=True),
        "ignoreCase": _FLAG,
        "multiline": _FLAG,
        "full": _FLAG,
        "absent": _FLAG,
    },
    MetricKind.NUMERIC: {
        "field": _FIELD,
        "value": Parameter(_is_number, "a number"),
        "absolute": _AMOUNT,
        "relative": _AMOUNT,
    },
    MetricKind.JSON: {
        "field": _FIELD,
        "value": _ANYTHING,
        "fields": _PATHS,
        "ignore": _PATHS,
        "ignoreCase": _FLAG,
        "trim": _FLAG,
        "absolute": _AMOUNT,
        "relative": _AMOUNT,
        "extra": _one_of("ignore", "count"),
    },
    MetricKind.JSON_SCHEMA: {
        "field": _FIELD,
        "schema": Parameter(lambda value: isinstance(value, dict), "a JSON schema", required=True),
    },
    MetricKind.LENGTH: {"field": _FIELD, "unit": _one_of("characters", "words"), "min": _COUNT, "max": _COUNT},
    MetricKind.EXPRESSION: {"expression": _text(required=True)},
    MetricKind.LLM_JUDGE: {
        **_JUDGE,
        "scale": Parameter(_is_scale, "its least and its greatest score, such as [0, 10]"),
    },
    MetricKind.PAIRWISE_JUDGE: _JUDGE,
}


@dataclass(frozen=True, slots=True)
class Wrong:
    """`parameter` is named as it is on the wire."""

    parameter: str
    reason: str


def wrong_parameter(metric: Metric) -> Wrong | None:
    """The first thing that is wrong with a metric's parameters. Says nothing of patterns, schemas and expressions."""
    known = PARAMETERS[metric.kind]
    for name, value in metric.parameters.items():
        if name not in known:
            return Wrong(name, f"{metric.kind} has no such parameter; it has {', '.join(known)}")
        if not known[name].accepts(value):
            return Wrong(name, f"has to be {known[name].told}")
    missing = (name for name, each in known.items() if each.required and name not in metric.parameters)
    absent = next(missing, None)
    return Wrong(absent, f"is missing: {known[absent].told}") if absent is not None else _at_odds(metric)


def _at_odds(metric: Metric) -> Wrong | None:
    """Parameters that are wrong together."""
    given: JsonObject = metric.parameters
    if metric.kind is MetricKind.LENGTH and not {"min", "max"} & given.keys():
        return Wrong("min", "is missing, and so is max")
    if metric.kind is MetricKind.LENGTH and given.get("min", 0) > given.get("max", math.inf):
        return Wrong("max", "is less than min")
    if "prompt" not in given and "rubric" not in given and "model" in given:
        return Wrong("rubric", "is missing: what a good answer is")
    return None
