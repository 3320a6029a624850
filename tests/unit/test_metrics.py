"""engine.evaluation: what each kind of metric says, and what they say together."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from engine.evaluation.measures import Measures
from engine.evaluation.values import Errored, Measured, Metric, MetricKind, Outcome, Sample, Unscored, Value, combined


@pytest.fixture(scope="module")
def measures() -> Iterator[Measures]:
    opened = Measures(seconds=1.0)
    yield opened
    opened.close()


def _outcome(measures: Measures, kind: str, output: Any, expected: Any = None, **parameters: Any) -> Outcome:
    metric = Metric(kind=MetricKind(kind), name=kind, parameters=parameters)
    wrong = measures.wrong(metric)
    assert wrong is None, wrong
    return measures.outcome(metric, Sample(output=output, input={"q": "why"}, expected=expected, tags=("de", "hard")))


SCORES: list[tuple[str, Any, Any, dict[str, Any], float]] = [
    ("exact", " Yes\n", "Yes", {}, 1.0),
    ("exact", "yes", "Yes", {}, 0.0),
    ("exact", "yes", "Yes", {"ignoreCase": True}, 1.0),
    ("exact", " Yes", "Yes", {"trim": False}, 0.0),
    ("exact", {"a": 1, "b": [1]}, {"b": [1.0], "a": 1}, {}, 1.0),
    ("exact", '{"a": true}', {"a": 1}, {}, 0.0),
    ("exact", {"label": "x", "why": "…"}, {"label": "x"}, {"field": "label"}, 1.0),
    ("exact", {"label": "x"}, "x", {"field": "label"}, 1.0),
    ("exact", {"other": "x"}, "x", {"field": "label"}, 0.0),
    ("exact", 5, "5", {}, 1.0),
    ("contains", "the cat sat", ["cat", "dog"], {}, 0.5),
    ("contains", "the cat sat", ["cat", "dog"], {"mode": "any"}, 1.0),
    ("contains", "the cat sat", None, {"value": "dog", "absent": True}, 1.0),
    ("contains", "the Cat sat", "cat", {"ignoreCase": True}, 1.0),
    ("regex", "order 4711", None, {"pattern": r"\d{4}"}, 1.0),
    ("regex", "order 4711", None, {"pattern": r"\d{4}", "full": True}, 0.0),
    ("regex", "ORDER", None, {"pattern": "order", "ignoreCase": True, "absent": True}, 0.0),
    ("numeric", "It costs 1,299.50 dollars", 1300, {"absolute": 1}, 1.0),
    ("numeric", {"n": 98}, {"n": 100}, {"field": "n", "relative": 0.01}, 0.0),
    ("numeric", "none", 3, {}, 0.0),
    ("numeric", "a GPT-4 answer", 4, {}, 1.0),
    ("numeric", "x = -5", -5, {}, 1.0),
    ("numeric", 1.3, 1.2, {"absolute": 0.1}, 1.0),
    ("json", {"a": 1, "b": {"c": "X ", "d": 2}}, {"a": 1, "b": {"c": "X", "d": 3}}, {}, 2 / 3),
    ("json", '{"a": 1}', {"a": 1, "b": 2}, {"fields": ["a"]}, 1.0),
    ("json", {"a": 1, "b": 5}, {"a": 1, "b": {"c": 2}}, {"ignore": ["b"]}, 1.0),
    ("json", {"a": 1, "z": 1}, {"a": 1}, {"extra": "count"}, 0.5),
    ("json", {"gpt-4.1": 1, "": 2}, {"gpt-4.1": 1, "": 2}, {"extra": "count"}, 1.0),
    ("json", {"a": 1, "why": {"x": 1}}, {"a": 1}, {"extra": "count", "ignore": ["why"]}, 1.0),
    ("json", {"a": {"b": 1}, "c": 5}, {"a": {"b": 1}, "c": 2}, {"extra": "count", "fields": ["a"]}, 1.0),
    ("json", "no JSON", {"a": 1}, {}, 0.0),
    ("json_schema", {"a": 1}, None, {"schema": {"required": ["a"]}}, 1.0),
    ("json_schema", '{"a": "1"}', None, {"schema": {"properties": {"a": {"type": "integer"}}}}, 0.0),
    ("length", "one two three", None, {"unit": "words", "max": 2}, 0.0),
    ("length", "one", None, {"min": 1, "max": 3}, 1.0),
    ("expression", {"n": 4}, {"n": 4}, {"expression": "abs(output['n'] - expected['n']) < 1 and 'de' in tags"}, 1.0),
    ("expression", "a b", None, {"expression": "sum(1 for w in output.split() if w in input['q'] + 'a') / 2"}, 0.5),
]


@pytest.mark.parametrize("case", SCORES)
def test_scores(measures: Measures, case: tuple[str, Any, Any, dict[str, Any], float]) -> None:
    """Each kind of metric scores as its parameters say, and tells what is wrong where anything is."""
    kind, output, expected, parameters, score = case
    outcome = _outcome(measures, kind, output, expected, **parameters)
    assert isinstance(outcome, Value)
    assert outcome.score == pytest.approx(score)
    assert outcome.score == 1.0 or outcome.feedback


def test_wrong_fields_are_told(measures: Measures) -> None:
    """JSON equality lists each wrong field with what was expected and what came."""
    outcome = _outcome(measures, "json", {"due": "03/07", "by": ["x"]}, {"due": "2025-03-07", "by": ["x", "y"]})
    assert isinstance(outcome, Value)
    assert outcome.feedback == 'due: expected "2025-03-07", got "03/07"; by.1: expected "y", got nothing'


@pytest.mark.parametrize(
    ("kind", "parameters", "expected"),
    [
        ("exact", {}, None),
        ("numeric", {}, "many"),
        ("expression", {"expression": "output['nope']"}, None),
        ("expression", {"expression": "7"}, None),
        ("expression", {"expression": "'a' * 99999 * 99999 == ''"}, None),
        ("json_schema", {"schema": {"$ref": "http://elsewhere.example/schema"}}, None),
    ],
)
def test_a_measure_that_makes_no_sense_is_an_error(
    measures: Measures, kind: str, parameters: dict[str, Any], expected: Any
) -> None:
    """A metric that cannot be applied to a sample gives an error, which is neither a 0 nor unscored."""
    assert isinstance(_outcome(measures, kind, {"x": 1}, expected, **parameters), Errored)


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("regex", {"pattern": "(a|aa)+$"}),
        ("json_schema", {"schema": {"properties": {"x": {"pattern": "^(a|aa)+$"}}}, "field": "nested"}),
        ("expression", {"expression": "output['nested']['x'].replace('a', output['nested']['x'] * 500) * 90 == ''"}),
        ("expression", {"expression": "all(sum(list(range(9))) for x in output)"}),
    ],
)
def test_hostile_measures_end(measures: Measures, kind: str, parameters: dict[str, Any]) -> None:
    """Patterns, schemas and expressions that would run for ever or eat all memory end as errors, soon, and the next
    one is measured as if nothing had been."""
    began = time.monotonic()
    hostile = _outcome(measures, kind, {"nested": {"x": "a" * 60 + "b"}}, **parameters)
    assert isinstance(hostile, Errored), hostile
    assert time.monotonic() - began < 5
    assert _outcome(measures, "regex", "fine", pattern="fine") == Value(score=1.0)


@pytest.mark.parametrize(
    "text",
    [
        "().__class__.__base__",
        "__import__('os')",
        "output.__class__",
        "'{0.__class__}'.format(1)",
        "'%1000000000d' % 1",
        "2 ** 99999999",
        "(lambda: 1)()",
        "[x := 1]",
        "f'{output}'",
        "open('/etc/passwd')",
        "exec('1')",
        "getattr(output, 'x')",
    ],
)
def test_expressions_reach_nothing(measures: Measures, text: str) -> None:
    """Attributes, imports, formatting, powers, lambdas and foreign functions are out of an expression's reach."""
    metric = Metric(kind=MetricKind.EXPRESSION, name="e", parameters={"expression": text})
    assert isinstance(measures.outcome(metric, Sample(output={"x": 1})), Errored)


@pytest.mark.parametrize(
    ("kind", "parameters", "named"),
    [
        ("exact", {"ignorecase": True}, "ignorecase"),
        ("regex", {}, "pattern"),
        ("regex", {"pattern": "("}, "pattern"),
        ("numeric", {"absolute": -1}, "absolute"),
        ("length", {}, "min"),
        ("length", {"min": 3, "max": 2}, "max"),
        ("json_schema", {"schema": {"type": "strange"}}, "schema"),
        ("json_schema", {"schema": {"$schema": 5}}, "schema"),
        ("expression", {"expression": "output ="}, "expression"),
        ("expression", {"expression": "lambda: 1"}, "expression"),
        ("expression", {"expression": "(" * 3000 + ")" * 3000}, "expression"),
        ("llm_judge", {"rubric": "good"}, "model"),
        ("llm_judge", {"model": "m"}, "rubric"),
        ("llm_judge", {"model": "m", "rubric": "r", "scale": [5, 1]}, "scale"),
    ],
)
def test_wrong_parameters_are_named(measures: Measures, kind: str, parameters: dict[str, Any], named: str) -> None:
    """A parameter that is unknown, missing or not acceptable is named before anything is measured."""
    wrong = measures.wrong(Metric(kind=MetricKind(kind), name="m", parameters=parameters))
    assert wrong is not None
    assert wrong.parameter == named
    assert wrong.reason
    assert "within" not in wrong.reason


def test_a_number_beyond_all_bounds(measures: Measures) -> None:
    """An expression that gives a whole number of hundreds of digits is told so, not that it took too long."""
    outcome = _outcome(measures, "expression", "x", expression="int('9' * 400)")
    assert isinstance(outcome, Errored)
    assert "from 0 to 1" in outcome.reason


_ENDLESS = {"pattern": "(a|aa)+$"}


def test_one_answer_does_not_take_all_time() -> None:
    """However many metrics are too slow, an answer is done with after a few times what one of them may take."""
    metrics = [Metric(kind=MetricKind.REGEX, name=str(number), parameters=_ENDLESS) for number in range(20)]
    hurried = Measures(seconds=0.1)
    found = hurried.measured([*metrics, Metric(kind=MetricKind.EXACT, name="e")], Sample(output="a" * 60 + "b"))
    hurried.close()
    reasons = [each.outcome.reason for each in found if isinstance(each.outcome, Errored)]
    assert len(found) == 21
    assert reasons[0].startswith("took longer")
    assert reasons[-2] == "not measured: the metrics before it took too long"


def test_slow_metrics_keep_no_others_waiting() -> None:
    """While one answer is measured by something slow another one is measured too."""
    shared, under_way, ended = Measures(seconds=5.0), threading.Event(), threading.Event()

    def slowly() -> None:
        under_way.set()
        shared.outcome(Metric(kind=MetricKind.REGEX, name="slow", parameters=_ENDLESS), Sample(output="a" * 60 + "b"))
        ended.set()

    busy = threading.Thread(target=slowly)
    busy.start()
    assert under_way.wait(5)
    fine = Metric(kind=MetricKind.REGEX, name="fine", parameters={"pattern": "fine"})
    assert [shared.outcome(fine, Sample(output="fine")) for _ in range(9)] == [Value(score=1.0)] * 9
    assert not ended.is_set()
    shared.close()
    busy.join()


def _measured(outcome: Outcome, weight: float = 1.0, *, hard: bool = False) -> Measured:
    return Measured(Metric(kind=MetricKind.EXACT, name="m", weight=weight, hard=hard), outcome)


def test_together() -> None:
    """The weighted mean; a failed gate is 0, a failed judge unscored, a wrong metric an error; never a judge's 0."""
    good, bad, unknown, broken = Value(score=1.0), Value(score=0.5, feedback="half"), Unscored("down"), Errored("bug")
    bad_alone = Value(score=0.5, feedback="m: half")
    assert combined([_measured(good, 3), _measured(bad)]) == Value(score=0.875, feedback="m: half")
    assert combined([_measured(good), _measured(unknown)]) == Unscored("m: down")
    assert combined([_measured(bad, hard=True), _measured(unknown)]) == Value(score=0.0, feedback="m: half")
    assert combined([_measured(unknown, hard=True), _measured(good)]) == Unscored("m: down")
    assert combined([_measured(bad, hard=True), _measured(unknown), _measured(broken)]) == Errored("m: bug")
    assert combined([_measured(good, 0, hard=True)]) == good
    assert combined([_measured(bad), _measured(unknown, 0)]) == bad_alone
    assert combined([_measured(unknown, 0)]) == Unscored("m: down")
