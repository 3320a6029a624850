"""Measures by what strangers wrote, in a process of its own (see utilities.apart): patterns, schemas and expressions
can be kept busy for hours by a few characters. Time is bounded from outside, memory here."""

import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from engine.evaluation.answers import MISSING, as_json, as_text, shown
from engine.evaluation.expression import expressed, expression_problem
from engine.evaluation.metrics import output_at, passed
from engine.evaluation.values import Errored, MetricKind, Outcome, Sample, Value
from engine.llm import JsonObject
from utilities.apart import serve

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

MOST_MEMORY = 1 << 30
_MOST_COMPILED = 256
_MOST_PROBLEMS = 100
_MOST_TOLD = 5


def handle(request: bytes) -> bytes:
    """["check", kind, parameters] -> {"problem": null or what is wrong with the pattern, schema or expression};
    ["measure", kind, parameters, sample] -> {"score", "feedback"} or {"error"}."""
    what, kind, parameters, *rest = orjson.loads(request)
    problem = _PROBLEMS[MetricKind(kind)](parameters)
    if what == "check":
        return orjson.dumps({"problem": problem})
    sample = Sample(**{**rest[0], "tags": tuple(rest[0]["tags"])})
    outcome = Errored(problem) if problem is not None else _MEASURES[MetricKind(kind)](parameters, sample)
    if isinstance(outcome, Value):
        return orjson.dumps({"score": outcome.score, "feedback": outcome.feedback})
    return orjson.dumps({"error": outcome.reason})


def _pattern(parameters: JsonObject) -> "re.Pattern[str]":
    flags = re.IGNORECASE if parameters.get("ignoreCase", False) else re.NOFLAG
    return re.compile(parameters["pattern"], flags | (re.MULTILINE if parameters.get("multiline", False) else 0))


def _pattern_problem(parameters: JsonObject) -> str | None:
    try:
        _pattern(parameters)
    except (re.error, OverflowError, RecursionError) as error:
        return f"not a regular expression: {error}"
    return None


def _matched(parameters: JsonObject, sample: Sample) -> Outcome:
    pattern, output = _pattern(parameters), output_at(parameters, sample)
    text = "" if output is MISSING else as_text(output)
    found = pattern.fullmatch(text) if parameters.get("full", False) else pattern.search(text)
    if parameters.get("absent", False):
        return passed(found is None, f"matches {shown(pattern.pattern)}, which it must not")
    return passed(found is not None, f"does not match {shown(pattern.pattern)}")


def _schema_problem(parameters: JsonObject) -> str | None:
    from jsonschema import SchemaError  # noqa: PLC0415 - slow to import, seldom needed

    try:
        _compiled(orjson.dumps(parameters["schema"]))
    except (SchemaError, RecursionError) as error:
        return f"not a JSON schema (at {error.json_path if isinstance(error, SchemaError) else '$'})"
    return None


@lru_cache(maxsize=_MOST_COMPILED)
def _compiled(text: bytes) -> "Validator":
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415 - as above
    from jsonschema.validators import validator_for  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    schema = orjson.loads(text)
    if not isinstance(schema.get("$schema", ""), str):
        raise SchemaError("is no text", path=["$schema"])
    kind = validator_for(schema, default=Draft202012Validator)
    kind.check_schema(schema)
    # An empty registry: the default one fetches references from the network.
    validator: Validator = kind(schema, registry=Registry())
    return validator


def _fits(parameters: JsonObject, sample: Sample) -> Outcome:
    from referencing.exceptions import Unresolvable  # noqa: PLC0415 - as above

    try:
        output = as_json(output_at(parameters, sample))
    except ValueError:
        return Value(score=0.0, feedback="the output is not JSON")
    if output is MISSING:
        return Value(score=0.0, feedback="the output lacks the field")
    try:
        errors = _compiled(orjson.dumps(parameters["schema"])).iter_errors(output)
        told = [f"{each.json_path} breaks {each.validator!r}" for each in islice(errors, _MOST_PROBLEMS)]
    except (Unresolvable, RecursionError):
        return Errored("the schema refers to something outside itself, or to itself without end")
    return passed(not told, "; ".join(list(dict.fromkeys(told))[:_MOST_TOLD]))


_PROBLEMS: Mapping[MetricKind, Callable[[JsonObject], str | None]] = {
    MetricKind.REGEX: _pattern_problem,
    MetricKind.JSON_SCHEMA: _schema_problem,
    MetricKind.EXPRESSION: lambda parameters: expression_problem(parameters["expression"]),
}
_MEASURES: Mapping[MetricKind, Callable[[JsonObject, Sample], Outcome]] = {
    MetricKind.REGEX: _matched,
    MetricKind.JSON_SCHEMA: _fits,
    MetricKind.EXPRESSION: lambda parameters, sample: expressed(parameters["expression"], sample),
}


def _bound_memory() -> None:
    """Where the system can: who needs more is told that there is none, or ends."""
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))


def main(arguments: Any) -> None:
    _bound_memory()
    serve(handle, sys.stdin.buffer, sys.stdout.buffer, float(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
