"""What turns a run into a search over a dataset: the optional fields of its body, and what its answer says of it."""

from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import Field, model_validator

from api.models.base import SAFE_INTEGER, Answer, Body, StrictBody
from api.models.job import Object, Text
from api.models.money import MoneyModel, money_to_wire
from engine.llm import JsonObject
from engine.records.runs import Run
from engine.records.searches import (
    Combination,
    Promotion,
    RunBudget,
    SearchProgress,
    SearchTerms,
)

MOST_COMBINATIONS = 30
MOST_PARALLEL = 1_000

Wire = dict[str, Any]
Name = Annotated[Text, Field(min_length=1)]
Count = Annotated[int, Field(ge=1, le=SAFE_INTEGER)]


class StrategyModel(StrictBody):
    """`name` is a built-in strategy (auto, refine, reflect, opro, beam, duel, combos) or a plug-in's.

    The name alone is taken too, as a text.
    """

    name: Name = "auto"
    parameters: Object = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class SplitModel(StrictBody):
    """`holdout` is what the search never sees: a share of the dataset below 1, or a number of items."""

    holdout: float | int = Field(ge=0, le=100_000)


class RunBudgetModel(StrictBody):
    """What all calls of the run may take, whatever their role. What is absent is not restricted.

    Whether a call is made depends on what it can take at most: with a limit in tokens or money, answers of models that
    have no `maxCompletionToken` are held to 4,096 tokens, or eight times the longest one seen.
    """

    calls: Count | None = None
    tokens: Count | None = None
    amount: MoneyModel | None = None
    seconds: float | None = Field(None, gt=0, le=31_536_000, description="Of running; pauses do not count.")

    def to_domain(self) -> RunBudget:
        amount = None if self.amount is None else self.amount.to_domain()
        return RunBudget(calls=self.calls, tokens=self.tokens, amount=amount, seconds=self.seconds)


class CombinationModel(StrictBody):
    """Models by name. A combination's own judge gives the feedback and the scores that it searches by; all are
    compared by the same judge, `referenceJudge`: scores of different ones say nothing about the models.
    """

    working_model: Name
    meta_model: Name
    judge_model: Name | None = None

    def to_domain(self) -> Combination:
        return Combination(self.working_model, self.meta_model, self.judge_model)


class SearchFields(Body):
    """Without `dataset` the others must be absent, and the run refines one prompt on one input.

    Unknown fields are ignored, as existing clients are used to, but for those that are nearly one of these.
    """

    dataset: Name | None = Field(None, description="The id of a dataset: the run searches over its items.")
    evaluator: Name | None = Field(
        None, description="The id of an evaluator; without one the evaluation prompt is the judge's rubric."
    )
    strategy: StrategyModel | None = None
    split: SplitModel | None = None
    seed: int | None = Field(None, ge=0, le=SAFE_INTEGER)
    budget: RunBudgetModel | None = None
    target: float | None = Field(None, ge=0, le=1, description="The validation score with which the search ends.")
    patience: int | None = Field(None, ge=1, le=10_000, description="Steps without a better score that end it.")
    model_combinations: Annotated[list[CombinationModel], Field(min_length=1)] | None = Field(
        None, description="Working, judge and meta-models to choose from; one that is named twice counts once."
    )
    reference_judge: Name | None = Field(
        None, description="The model that compares combinations and proves the winner; the evaluator's own if absent."
    )
    promote: Promotion | None = None
    min_gain: float | None = Field(None, ge=0, le=1, description="The least gain worth a promotion; 0.01 if absent.")
    max_parallel: int | None = Field(None, ge=1, le=MOST_PARALLEL, description="Rollouts at a time; 16 if absent.")
    force: bool | None = Field(None, description="Search also where the prompt is nearly perfect already.")

    @model_validator(mode="before")
    @classmethod
    def _spelt(cls, value: Any) -> Any:
        if isinstance(value, dict):
            known = {field.alias or name for name, field in cls.model_fields.items()}
            for name in sorted(str(each) for each in value if each not in known):
                if near := get_close_matches(name, _OPTIONAL, n=1, cutoff=0.8):
                    raise ValueError(f"{name} is not a field of a run; is {near[0]} meant?")
        return value

    def misplaced(self) -> list[str]:
        """The wire names of fields that are given and mean nothing without a dataset."""
        if self.dataset is not None:
            return []
        given = {name for name in SearchFields.model_fields if getattr(self, name) is not None}
        return sorted(SearchFields.model_fields[name].alias or name for name in given)

    def terms(self) -> SearchTerms | None:
        """None for a run that refines one prompt on one input."""
        if self.dataset is None:
            return None
        strategy = self.strategy or StrategyModel.model_validate({})
        chosen: dict[str, Any] = {
            "seed": self.seed,
            "promote": self.promote,
            "min_gain": self.min_gain,
            "max_parallel": self.max_parallel,
            "force": self.force,
        }
        return SearchTerms(
            dataset_id=self.dataset,
            evaluator_id=self.evaluator,
            strategy=strategy.name,
            parameters=strategy.parameters,
            holdout=_holdout(self.split),
            budget=RunBudget() if self.budget is None else self.budget.to_domain(),
            target=self.target,
            patience=self.patience,
            combinations=tuple(dict.fromkeys(one.to_domain() for one in self.model_combinations or ())),
            reference_judge=self.reference_judge,
            **{name: value for name, value in chosen.items() if value is not None},
        )


def _holdout(split: SplitModel | None) -> float | int | None:
    if split is None:
        return None
    return float(split.holdout) if split.holdout < 1 else int(split.holdout)


class RunBudgetResult(Answer):
    calls: int | None
    tokens: int | None
    amount: dict[str, Any] | None
    seconds: float | None


class CombinationResult(Answer):
    working_model: str
    meta_model: str
    judge_model: str | None


class SearchResult(Answer):
    """How far a search is. `verdict` is promoted, proven, not_proven, no_improvement or no_headroom, `numbers` are what
    it rests on, and `finishReason` is why the search ended.
    """

    phase: str
    step: int
    baseline: float | None
    best: float | None
    finish_reason: str | None
    verdict: str | None
    numbers: JsonObject
    best_prompt: str | None
    best_prompt_id: str | None
    active_seconds: float


def search_to_wire(run: Run) -> Wire:
    """The fields of a run's answer that are about its search; null for a run without one."""
    terms = run.search
    if terms is None:
        return dict.fromkeys(WIRE_NAMES)
    return {
        "dataset": terms.dataset_id,
        "evaluator": terms.evaluator_id,
        "strategy": {"name": terms.strategy, "parameters": terms.parameters},
        "split": None if terms.holdout is None else {"holdout": terms.holdout},
        "seed": terms.seed,
        "budget": _budget_to_wire(terms.budget),
        "target": terms.target,
        "patience": terms.patience,
        "modelCombinations": [_combination_to_wire(one) for one in terms.combinations],
        "referenceJudge": terms.reference_judge,
        "promote": terms.promote,
        "minGain": terms.min_gain,
        "maxParallel": terms.max_parallel,
        "force": terms.force,
        "search": None if run.progress is None else _progress_to_wire(run.progress),
    }


_OPTIONAL = tuple(sorted(field.alias or name for name, field in SearchFields.model_fields.items()))


WIRE_NAMES = (
    *("dataset", "evaluator", "strategy", "split", "seed", "budget", "target", "patience", "modelCombinations"),
    *("referenceJudge", "promote", "minGain", "maxParallel", "force", "search"),
)


def _combination_to_wire(one: Combination) -> Wire:
    return {"workingModel": one.working, "metaModel": one.meta, "judgeModel": one.judge}


def _budget_to_wire(budget: RunBudget) -> Wire:
    return {
        "calls": budget.calls,
        "tokens": budget.tokens,
        "amount": None if budget.amount is None else money_to_wire(budget.amount),
        "seconds": budget.seconds,
    }


def _progress_to_wire(progress: SearchProgress) -> Wire:
    return {
        "phase": progress.phase,
        "step": progress.step,
        "baseline": progress.baseline,
        "best": progress.best,
        "finishReason": progress.finish,
        "verdict": progress.verdict,
        "numbers": progress.numbers,
        "bestPrompt": progress.best_text,
        "bestPromptId": progress.winner_id,
        "activeSeconds": progress.active_seconds,
    }
