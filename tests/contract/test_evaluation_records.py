"""Evaluations and their results on every back-end."""

from decimal import Decimal

from engine.evaluation.statistics import Interval
from engine.evaluation.values import Metric, MetricKind
from engine.jobs.job import Lease, Totals
from engine.records.evaluations import (
    Contender,
    Evaluation,
    EvaluationPart,
    EvaluationStatus,
    ItemResult,
    ItemsAt,
    Mark,
    Tally,
)
from engine.records.store import Storage
from tests.support.factories import CLIENT, NOW, metadata

TALLY = Tally(scored=1, unscored=2, errors=3, weight=2.5, total=1.25, interval=Interval(0.1, 0.9), metrics={"j": 0.5})
EVALUATION = Evaluation(
    id="e" * 24,
    client_id=CLIENT,
    name="n",
    dataset_id="d" * 24,
    evaluator_id="f" * 24,
    items=ItemsAt(id="d" * 24, count=3, starts=(0, 2)),
    metrics=(Metric(kind=MetricKind.LLM_JUDGE, name="j", weight=0.5, parameters={"$model": [None]}),),
    contenders=(Contender(prompts=("p",), instructions="\0"), Contender(instructions="i")),
    models=("m",),
    temperature=0.5,
    response_format={"type": "json_schema", "schema": {"$ref": "#"}},
    priority=7,
    max_parallel=3,
    seed=2**53 - 1,
    status=EvaluationStatus.CANCELLED,
    done=4,
    tallies=(
        Tally(scored=1, unscored=2, errors=3, weight=2.5, total=1.25, interval=Interval(0.1, 0.9), metrics={"j": 0.5}),
        Tally(),
    ),
    spent={"eval": Totals(calls=1, output_cost=Decimal("0.1"), currencies=frozenset({"EUR"}))},
    failure_reason="why",
    withdrawal=True,
    discarded=True,
    lease=Lease("replica", NOW),
    metadata=metadata(),
)
PART = EvaluationPart(
    id="e-0",
    evaluation_id="e",
    results=(
        ItemResult(
            item_id="a",
            cell=1,
            mark=Mark.UNSCORED,
            weight=2.0,
            job_id="j",
            reason="r",
            metrics={"j": {"unscored": "r"}},
            judge_jobs=("k",),
        ),
        ItemResult(item_id="b", cell=0, mark=Mark.SCORED, weight=1.0, job_id="l", score=0.5, feedback="f"),
    ),
    metadata=metadata(),
)


def test_an_evaluation_comes_back_as_it_went_in(storage: Storage) -> None:
    """Every field of it and of its results is stored and given back."""
    storage.evaluations.add(EVALUATION)
    assert storage.evaluations.get(EVALUATION.id) == EVALUATION
    storage.evaluation_parts.add(PART)
    assert storage.evaluation_parts.get(PART.id) == PART
