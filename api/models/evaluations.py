"""Evaluations: bodies in and out."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from api.models.base import SAFE_INTEGER, Answer, Resource, Short, StrictBody, resource_to_wire
from api.models.datasets import Name
from api.models.job import Format, Priority, Prompts, Temperature, Text
from api.models.runs import ProcessingMetrics
from api.models.waiting import WaitingFor, waiting_to_wire
from api.services.evaluations import Comparison
from api.services.summary import metrics_of
from api.services.waits import Waiting
from engine.evaluation.statistics import Interval
from engine.llm import ResponseFormat
from engine.records.evaluations import MOST_CELLS, Contender, Evaluation, EvaluationStatus, ItemResult, Mark, Tally

LONGEST_INSTRUCTIONS = 100_000
MOST_INSTRUCTIONS = 400_000
"""Characters of one text, and of all texts of an evaluation, which are kept in one record."""

Wire = dict[str, Any]
Known = Annotated[str, Short, Field(min_length=1)]


class ContenderModel(StrictBody):
    """What a model is told: stored prompts by their ids, a text that is stored nowhere, or both in this order.

    The id of one prompt is taken too, as a text.
    """

    prompts: Prompts = Field(default_factory=list)
    instructions: Annotated[str, Field(max_length=LONGEST_INSTRUCTIONS)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_id(cls, value: Any) -> Any:
        return {"prompts": [value]} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _something(self) -> "ContenderModel":
        if not self.prompts and not self.instructions:
            raise ValueError("give prompts, instructions or both")
        return self

    def to_domain(self) -> Contender:
        return Contender(prompts=tuple(self.prompts), instructions=self.instructions or None)


class EvaluationCreateRequest(StrictBody):
    """Each of `prompts` is tried with each of `models`: a cell. Implements api.services.evaluations.EvaluationDraft."""

    name: Name | None = None
    dataset: Known
    evaluator: Known
    prompts: Annotated[list[ContenderModel], Field(min_length=1, max_length=MOST_CELLS)]
    models: Annotated[list[Text], Field(min_length=1, max_length=MOST_CELLS)]
    temperature: Temperature = 0.0
    asked_format: Format = Field(None, alias="responseFormat")
    priority: Priority = 100
    max_parallel: int = Field(16, ge=1, le=500)
    seed: int = Field(0, ge=0, le=SAFE_INTEGER)

    @model_validator(mode="after")
    def _distinct(self) -> "EvaluationCreateRequest":
        if len(set(self.contenders)) < len(self.prompts) or len(set(self.models)) < len(self.models):
            raise ValueError("the same prompts or the same model are there twice")
        if sum(len(each.instructions or "") for each in self.prompts) > MOST_INSTRUCTIONS:
            raise ValueError(f"instructions have more than {MOST_INSTRUCTIONS} characters together")
        return self

    @property
    def contenders(self) -> Sequence[Contender]:
        return [each.to_domain() for each in self.prompts]

    @property
    def response_format(self) -> ResponseFormat:
        return "text" if self.asked_format is None else self.asked_format


class IntervalModel(Answer):
    """Of a mean, with 95 % confidence."""

    low: float
    high: float


class CellModel(Answer):
    """One of the prompts with one of the models. `mean` is weighted by the items' weights, and of scored ones alone."""

    cell: int
    prompts: list[str]
    instructions: str | None = None
    model: str
    scored: int
    unscored: int
    errors: int
    mean: float | None = None
    interval: IntervalModel | None = None
    metrics: dict[str, float]


class EvaluationResponse(Resource):
    """`done` of the `total` answers have their results. Intervals and means of metrics are there at the end.

    `spent` is what calls took by their role: work, eval. `waitsFor` is told of a single evaluation, not in lists: what
    keeps its jobs from being taken, also that no worker would.
    """

    evaluation_id: str
    client_id: str
    name: str | None = None
    dataset: str
    evaluator: str
    status: EvaluationStatus
    models: list[str]
    temperature: float
    response_format: Any
    priority: int
    max_parallel: int
    seed: int
    total: int
    done: int
    cells: list[CellModel]
    failure_reason: str | None = None
    processing_metrics: ProcessingMetrics | None = None
    spent: dict[str, ProcessingMetrics]
    waits_for: WaitingFor | None = None


class ItemResultResponse(Answer):
    """`score` is null where `outcome` is unscored or error: `reason` says why. `output` is the job's answer."""

    item_id: str
    cell: int
    outcome: Mark
    score: float | None = None
    weight: float
    feedback: str | None = None
    reason: str | None = None
    metrics: dict[str, dict[str, Any]]
    output: Any = None
    job_id: str
    judge_job_ids: list[str]


class ComparisonResponse(Answer):
    """`gain` is the mean of what the other scores above this one on the same item, `interval` where it lies.

    `p` is the chance of a gain so high by luck alone. `enough` is how many items would decide about a gain of this size
    four times in five. Items that only one of both has scored are counted and left out. `weighted` says that means
    and test count each item by its weight. `unscored` is the share of answers without a score, on the side where it is
    larger: beyond 0.2 nothing is proven.
    """

    verdict: str = Field(
        description="better, worse or not_proven, of the other one; p is held against 0.025, on either side"
    )
    count: int
    mean: float
    other_mean: float
    gain: float
    interval: IntervalModel | None = None
    p: float
    wins: int
    losses: int
    ties: int
    enough: int | None = None
    weighted: bool
    unscored: float
    only_here: int
    only_other: int


def evaluation_to_wire(evaluation: Evaluation, waits: Waiting | None = None) -> Wire:
    """The fields of EvaluationResponse."""
    tallies = evaluation.tallies or (Tally(),) * evaluation.cells
    return {
        "evaluationId": evaluation.id,
        "clientId": evaluation.client_id,
        "name": evaluation.name,
        "dataset": evaluation.dataset_id,
        "evaluator": evaluation.evaluator_id,
        "status": evaluation.status,
        "models": evaluation.models,
        "temperature": evaluation.temperature,
        "responseFormat": evaluation.response_format,
        "priority": evaluation.priority,
        "maxParallel": evaluation.max_parallel,
        "seed": evaluation.seed,
        "total": evaluation.units,
        "done": evaluation.done,
        "cells": [_cell_to_wire(evaluation, number, tally) for number, tally in enumerate(tallies)],
        "failureReason": evaluation.failure_reason,
        "processingMetrics": metrics_of(evaluation.totals),
        "spent": {role: metrics_of(totals) for role, totals in evaluation.spent.items()},
        "waitsFor": waiting_to_wire(waits),
        **resource_to_wire(evaluation),
    }


def _cell_to_wire(evaluation: Evaluation, number: int, tally: Tally) -> Wire:
    contender, model = evaluation.cell(number)
    return {
        "cell": number,
        "prompts": contender.prompts,
        "instructions": contender.instructions,
        "model": model,
        "scored": tally.scored,
        "unscored": tally.unscored,
        "errors": tally.errors,
        "mean": tally.mean,
        "interval": _interval_to_wire(tally.interval),
        "metrics": tally.metrics,
    }


def _interval_to_wire(interval: Interval | None) -> Wire | None:
    return None if interval is None else {"low": interval.low, "high": interval.high}


def result_to_wire(result: ItemResult, output: object) -> Wire:
    """The fields of ItemResultResponse."""
    return {
        "itemId": result.item_id,
        "cell": result.cell,
        "outcome": result.mark,
        "score": result.score,
        "weight": result.weight,
        "feedback": result.feedback,
        "reason": result.reason,
        "metrics": result.metrics,
        "output": output,
        "jobId": result.job_id,
        "judgeJobIds": result.judge_jobs,
    }


def comparison_to_wire(comparison: Comparison) -> Wire:
    """The fields of ComparisonResponse."""
    gain = comparison.gain
    return {
        "verdict": comparison.verdict,
        "count": gain.count,
        "mean": comparison.first_mean,
        "otherMean": comparison.second_mean,
        "gain": gain.mean,
        "interval": _interval_to_wire(gain.interval),
        "p": gain.p,
        "wins": gain.wins,
        "losses": gain.losses,
        "ties": gain.count - gain.wins - gain.losses,
        "enough": gain.enough,
        "weighted": comparison.weighted,
        "unscored": comparison.unscored,
        "onlyHere": comparison.only_first,
        "onlyOther": comparison.only_second,
    }
