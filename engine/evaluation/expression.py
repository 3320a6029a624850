"""Expressions over an answer, without `eval`: of Python's syntax what is a single expression, of its functions a few.

`simpleeval` walks the syntax tree; what it may reach is listed here and nowhere widened. Neither of the two bounds time
and memory for good, so expressions of strangers are only run in a process that has both bounded (see `isolated`).
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import simpleeval  # type: ignore[import-untyped]

from engine.evaluation.values import Errored, Outcome, Sample, Value

_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (abs, all, any, bool, float, int, len, max, min, round, sorted, str, sum)
}
_SYNTAX = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Store, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not),
    *(ast.USub, ast.UAdd, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Compare),
    *(ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn, ast.Is, ast.IsNot, ast.IfExp, ast.Call),
    *(ast.keyword, ast.Subscript, ast.Slice, ast.Attribute, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.ListComp),
    *(ast.GeneratorExp, ast.comprehension),
)
_METHODS: dict[type | None, set[str]] = {
    str: {
        *("casefold", "count", "endswith", "find", "isalnum", "isalpha", "isdecimal", "isdigit", "islower", "isspace"),
        *("isupper", "join", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind"),
        *("rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper"),
    },
    dict: {"get", "items", "keys", "values"},
    list: {"count", "index"},
    tuple: {"count", "index"},
    set: {"difference", "intersection", "isdisjoint", "issubset", "issuperset", "union"},
}


def _remainder(first: Any, second: Any) -> Any:
    """Of numbers: a text's would format, and so grow without end."""
    if isinstance(first, str):
        raise simpleeval.FeatureNotAvailable("% is for numbers")
    return first % second


_FAILURES = (
    *(simpleeval.InvalidExpression, ArithmeticError, AttributeError, LookupError, NameError, TypeError, ValueError),
    *(MemoryError, RecursionError),
)
_REFUSED = (ast.Pow, ast.LShift, ast.RShift, ast.BitAnd, ast.BitOr, ast.BitXor, ast.Invert)
_OPERATORS = {kind: function for kind, function in simpleeval.DEFAULT_OPERATORS.items() if kind not in _REFUSED} | {
    ast.Mod: _remainder,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}


def expression_problem(text: str) -> str | None:
    """What is wrong with an expression, as far as it can be told without a sample."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        return f"not a Python expression: {error.msg} at character {error.offset or 0}"
    except (ValueError, RecursionError, MemoryError):
        return "not a Python expression"
    strange = next((node for node in ast.walk(tree) if not isinstance(node, _SYNTAX)), None)
    return None if strange is None else f"{type(strange).__name__} is not available in expressions"


def expressed(text: str, sample: Sample) -> Outcome:
    """What an expression says: true or false, or a number from 0 to 1."""
    problem = expression_problem(text)
    if problem is not None:
        return Errored(problem)
    names = {"input": sample.input, "output": sample.output, "expected": sample.expected, "tags": list(sample.tags)}
    evaluator = simpleeval.EvalWithCompoundTypes(
        operators=_OPERATORS, functions=dict(_FUNCTIONS), names=names, allowed_attrs=_METHODS
    )
    try:
        result = evaluator.eval(text, ast.parse(text.strip(), mode="eval").body)
    except _FAILURES as error:
        return Errored(f"{type(error).__name__}: {error}"[:500])
    return _outcome_of(result)


def _outcome_of(result: Any) -> Outcome:
    if isinstance(result, bool):
        return Value(score=1.0) if result else Value(score=0.0, feedback="the expression is false")
    if isinstance(result, int | float) and 0 <= result <= 1:
        return Value(score=float(result), feedback=None if result == 1 else f"the expression is {result:.6g}")
    kind = _number_shown(result) if isinstance(result, int | float) else type(result).__name__
    return Errored(f"the expression gave {kind}: it has to give true, false or a number from 0 to 1")


def _number_shown(number: int | float) -> str:
    try:
        return f"{number:.6g}"
    except OverflowError:
        return "a number beyond all bounds"
