"""How a search's answers are scored by an evaluator's metrics."""

from collections.abc import Iterator

import pytest

from engine.evaluation.measures import Measures
from engine.evaluation.values import Metric, MetricKind
from llm_optimizer.metric_scoring import MetricScoring
from llm_optimizer.subject import Example

GATE = Metric(kind=MetricKind.LENGTH, name="short", weight=0.0, hard=True, parameters={"max": 5})
EXACT = Metric(kind=MetricKind.EXACT, name="exact")
JUDGE = Metric(kind=MetricKind.LLM_JUDGE, name="judge", parameters={"model": "judge", "rubric": "is right"})
EXAMPLE = Example(id="1", input={"n": 1}, expected="yes")


@pytest.fixture
def measures() -> Iterator[Measures]:
    opened = Measures()
    yield opened
    opened.close()


def test_no_judge_is_needed_once_a_hard_gate_has_failed(measures: Measures) -> None:
    """The answer is settled, and its mark is 0 by the gate alone; what a judge says of others counts as ever."""
    scoring = MetricScoring([JUDGE, GATE, EXACT], measures)
    assert scoring.settled(EXAMPLE, "far too long")
    mark = scoring.mark(EXAMPLE, "far too long", ())
    assert (mark.score, mark.problem) == (0.0, None)
    assert not scoring.settled(EXAMPLE, "yes")
    assert len(scoring.asks(EXAMPLE, "yes")) == 1
    assert scoring.mark(EXAMPLE, "yes", [{"score": 0.5}]).score == 0.75
    assert scoring.mark(EXAMPLE, "yes", [None]).score is None


def test_nothing_is_settled_where_there_is_no_judge(measures: Measures) -> None:
    """Metrics alone are measured when the mark is made, and never before."""
    scoring = MetricScoring([GATE], measures)
    assert not scoring.settled(EXAMPLE, "far too long")
    assert scoring.mark(EXAMPLE, "far too long", ()).score == 0.0
