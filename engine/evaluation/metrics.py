"""The metrics that are measured on the spot. Pure; see engine.evaluation.parameters for what each is told."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from engine.evaluation.answers import MISSING, Steps, along, as_json, as_text, at, leaves, number_of, same, shown
from engine.evaluation.values import Errored, Metric, MetricKind, Outcome, Sample, Value
from engine.llm import JsonObject

_MOST_TOLD = 20
_ROUNDING = 1e-12
"""Of the larger number: 1.3 lies within 0.1 of 1.2, whatever binary fractions make of the three."""

_NOTHING_EXPECTED = Errored("nothing is expected of this item, and the metric has no value of its own")


def measured_here(metric: Metric, sample: Sample) -> Outcome:
    """Of one of the kinds in HERE."""
    return HERE[metric.kind](metric.parameters, sample)


def output_at(parameters: JsonObject, sample: Sample) -> Any:
    """The output, or the field of it that the metric looks at; MISSING where it lacks that."""
    return at(sample.output, parameters.get("field"))


def expected_by(parameters: JsonObject, sample: Sample) -> Any:
    """The metric's own value, else what the item expects: of an object the same field. MISSING where there is none."""
    if "value" in parameters:
        return parameters["value"]
    if sample.expected is None:
        return MISSING
    return at(sample.expected, parameters.get("field")) if isinstance(sample.expected, dict) else sample.expected


def passed(holds: bool, feedback: str) -> Value:
    """1 or 0; the feedback is for a 0."""
    return Value(score=1.0) if holds else Value(score=0.0, feedback=feedback)


def _exact(parameters: JsonObject, sample: Sample) -> Outcome:
    expected, output = expected_by(parameters, sample), output_at(parameters, sample)
    if expected is MISSING:
        return _NOTHING_EXPECTED
    holds = output is not MISSING and _equal(expected, output, parameters)
    return passed(holds, f"expected {shown(expected)}, got {shown(output)}")


def _equal(expected: Any, output: Any, parameters: JsonObject) -> bool:
    if isinstance(expected, str):
        return _normal(expected, parameters) == _normal(as_text(output), parameters)
    try:
        return same(expected, as_json(output))
    except ValueError:
        return False


def _normal(text: str, parameters: JsonObject) -> str:
    trimmed = text.strip() if parameters.get("trim", True) else text
    return trimmed.casefold() if parameters.get("ignoreCase", False) else trimmed


def _contains(parameters: JsonObject, sample: Sample) -> Outcome:
    """The share of the texts that are in the output; with `absent` of those that are not."""
    expected = expected_by(parameters, sample)
    if expected is MISSING:
        return _NOTHING_EXPECTED
    wanted = [as_text(each) for each in (expected if isinstance(expected, list) else [expected])]
    output = output_at(parameters, sample)
    text = "" if output is MISSING else as_text(output)
    folds, absent = parameters.get("ignoreCase", False), parameters.get("absent", False)
    inside = text.casefold() if folds else text
    wrong = [each for each in wanted if ((each.casefold() if folds else each) in inside) is absent]
    if not wrong:
        return Value(score=1.0)
    return Value(score=_share(wanted, wrong, parameters), feedback=_told(wrong, absent=absent))


def _share(wanted: list[str], wrong: list[str], parameters: JsonObject) -> float:
    right = len(wanted) - len(wrong)
    return float(right > 0) if parameters.get("mode", "all") == "any" else right / len(wanted)


def _told(wrong: list[str], *, absent: bool) -> str:
    texts = ", ".join(shown(each) for each in wrong[:_MOST_TOLD])
    return f"holds {texts}, which it must not" if absent else f"lacks {texts}"


def _numeric(parameters: JsonObject, sample: Sample) -> Outcome:
    expected = expected_by(parameters, sample)
    wanted = None if expected is MISSING else number_of(expected)
    if wanted is None:
        return _NOTHING_EXPECTED if expected is MISSING else Errored(f"{shown(expected)} is no number to compare with")
    output = output_at(parameters, sample)
    got = None if output is MISSING else number_of(output)
    if got is None:
        return Value(score=0.0, feedback=f"expected the number {wanted:.12g}, got {shown(output)}")
    return passed(_near(wanted, got, parameters), f"expected {wanted:.12g}, got {got:.12g}")


def _near(wanted: float, got: float, parameters: JsonObject) -> bool:
    allowed: float = max(parameters.get("absolute", 0.0), parameters.get("relative", 0.0) * abs(wanted))
    slack = _ROUNDING * max(abs(wanted), abs(got)) if allowed else 0.0
    return abs(wanted - got) <= allowed + slack


def _json(parameters: JsonObject, sample: Sample) -> Outcome:
    """The share of the expected fields that the output has as they should be."""
    try:
        expected = as_json(expected_by(parameters, sample))
    except ValueError:
        return Errored("what is expected is no JSON")
    if expected is MISSING:
        return _NOTHING_EXPECTED
    try:
        output = as_json(output_at(parameters, sample))
    except ValueError:
        return Value(score=0.0, feedback="the output is not JSON")
    wanted = _wanted(expected, parameters)
    if not wanted:
        return Errored("none of the metric's fields is expected of this item")
    wrong = {steps: value for steps, value in wanted.items() if not _agrees(value, along(output, steps), parameters)}
    counts = parameters.get("extra", "ignore") == "count"
    known = {*wanted, *(steps for steps, _ in leaves(expected))} if counts else set()
    extra = [_path(steps) for steps in _extra(output, known, parameters)] if counts else []
    return _by_field(wanted, wrong, output, extra)


def _wanted(expected: Any, parameters: JsonObject) -> dict[Steps, Any]:
    fields, ignored = parameters.get("fields"), parameters.get("ignore", [])
    if fields is None:
        found: Mapping[Steps, Any] = dict(leaves(expected))
    else:
        found = {steps: along(expected, steps) for steps in (tuple(path.split(".")) for path in fields)}
    return {steps: value for steps, value in found.items() if value is not MISSING and not _under(steps, ignored)}


def _path(steps: Steps) -> str:
    return ".".join(steps)


def _under(steps: Steps, ignored: Iterable[str]) -> bool:
    path = _path(steps)
    return any(path == each or path.startswith(f"{each}.") for each in ignored)


def _agrees(wanted: Any, got: Any, parameters: JsonObject) -> bool:
    if got is MISSING:
        return False
    if isinstance(wanted, str) and isinstance(got, str):
        return _normal(wanted, parameters) == _normal(got, parameters)
    numbers = isinstance(wanted, int | float) and isinstance(got, int | float)
    if numbers and not isinstance(wanted, bool) and not isinstance(got, bool):
        return _near(wanted, got, parameters)
    return same(wanted, got)


def _extra(output: Any, known: set[Steps], parameters: JsonObject) -> list[Steps]:
    """Fields that are neither expected, nor inside of one that is, nor ignored."""
    ignored = parameters.get("ignore", [])
    return [
        steps
        for steps, _ in leaves(output)
        if not _under(steps, ignored) and not any(steps[:length] in known for length in range(len(steps) + 1))
    ]


def _by_field(wanted: dict[Steps, Any], wrong: dict[Steps, Any], output: Any, extra: list[str]) -> Value:
    total = len(wanted) + len(extra)
    score = (len(wanted) - len(wrong)) / total
    told = [
        {"field": _path(steps), "expected": shown(value), "got": shown(along(output, steps))}
        for steps, value in list(wrong.items())[:_MOST_TOLD]
    ]
    lines = [f"{each['field'] or 'all of it'}: expected {each['expected']}, got {each['got']}" for each in told]
    lines += [f"{path}: not expected" for path in extra[:_MOST_TOLD]]
    details: JsonObject = {"fields": len(wanted), "wrong": told, "extra": extra[:_MOST_TOLD]}
    return Value(score=score, feedback="; ".join(lines) or None, details=details)


def _length(parameters: JsonObject, sample: Sample) -> Outcome:
    output = output_at(parameters, sample)
    text = "" if output is MISSING else as_text(output)
    unit = parameters.get("unit", "characters")
    size = len(text.split()) if unit == "words" else len(text)
    least, most = parameters.get("min", 0), parameters.get("max")
    if size < least:
        return Value(score=0.0, feedback=f"has {size} {unit}, fewer than {least}", details={"length": size})
    if most is not None and size > most:
        return Value(score=0.0, feedback=f"has {size} {unit}, more than {most}", details={"length": size})
    return Value(score=1.0, details={"length": size})


HERE: Mapping[MetricKind, Callable[[JsonObject, Sample], Outcome]] = {
    MetricKind.EXACT: _exact,
    MetricKind.CONTAINS: _contains,
    MetricKind.NUMERIC: _numeric,
    MetricKind.JSON: _json,
    MetricKind.LENGTH: _length,
}
"""Their time is bounded by the size of the sample."""
