"""Subjects from storage: prompts, models, a dataset and an evaluator, as they are when a process takes a run up."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from engine.errors import InvalidField, UnknownReference
from engine.evaluation.measures import Measures
from engine.evaluation.values import JUDGES, Metric
from engine.jobs.queue import Page
from engine.llm import JsonObject
from engine.records.dataset_items import DatasetItems
from engine.records.datasets import Dataset, DatasetItem
from engine.records.pinning import LARGEST_TEXTS
from engine.records.runs import Run
from engine.records.searches import Combination, SearchTerms
from engine.records.store import Storage, Where
from engine.records.values import ROUTER, Model
from llm_optimizer.allowance import Tariff
from llm_optimizer.metric_scoring import MetricScoring, rubric_of
from llm_optimizer.strategies.meta_prompts import check_template
from llm_optimizer.subject import Example, Subject
from utilities.draws import draws

MOST_EXAMPLES = 5_000
"""Of one search: of a larger dataset so many are drawn. They are kept in memory, and no budget tries them all."""


class StoredSubjects:
    """Implements llm_optimizer.subject.Subjects."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._items = DatasetItems(storage.dataset_parts)
        self._measures = Measures()

    def pinned(self, run: Run) -> JsonObject:
        ids = (*run.initial_prompt_ids, run.eval_prompt_id, run.meta_prompt_id)
        found = self._storage.prompts.get_many(ids)
        for prompt_id in ids:
            if prompt_id not in found:
                raise UnknownReference("prompt", prompt_id)
        texts = [found[prompt_id].text for prompt_id in ids]
        if sum(map(len, texts)) > LARGEST_TEXTS:
            raise InvalidField("initialWorkingPromptIds", f"the prompts have more than {LARGEST_TEXTS} characters")
        first, *others, rubric, template = texts
        return {"prompt": first, "others": others, "rubric": rubric, "template": template}

    def load(self, run: Run, pinned: JsonObject) -> Subject:
        terms = run.search
        assert terms is not None
        metrics = self._metrics(run, pinned["rubric"])
        scoring = MetricScoring(judged_by(metrics, terms.reference_judge, "referenceJudge"), self._measures)
        arms = arms_of(run, terms, set(scoring.models))
        own = {
            arm.judge: MetricScoring(judged_by(metrics, arm.judge, "modelCombinations.judgeModel"), self._measures)
            for arm in arms
            if arm.judge is not None
        }
        names = {*scoring.models, *own, *(name for arm in arms for name in (arm.working, arm.meta))}
        models = self._models(names)
        known = self._with_others(models)
        return Subject(
            prompt=pinned["prompt"],
            others=tuple(pinned["others"]),
            template=_own_template(pinned["template"]),
            examples={item.id: _example(item) for item in self._examples(run, terms)},
            scoring=scoring,
            arms=arms,
            tariffs={name: tariff_of(name, known) for name in names},
            currency=_common_currency(terms, list(known.values())),
            own=own,
        )

    def close(self) -> None:
        self._measures.close()

    def _metrics(self, run: Run, rubric: str) -> Sequence[Metric]:
        assert run.search is not None
        wanted = run.search.evaluator_id
        if wanted is None:
            return [rubric_of(rubric, run.eval_model)]
        evaluator = self._storage.evaluators.get(wanted)
        if evaluator is None or evaluator.client_id != run.client_id:
            raise UnknownReference("evaluator", wanted)
        return evaluator.metrics

    def _examples(self, run: Run, terms: SearchTerms) -> Iterable[DatasetItem]:
        dataset = self._storage.datasets.get(terms.dataset_id)
        if dataset is None or dataset.client_id != run.client_id:
            raise UnknownReference("dataset", terms.dataset_id)
        if dataset.count <= MOST_EXAMPLES:
            return self._items.all(dataset)
        return self._some(dataset, terms.seed)

    def _some(self, dataset: Dataset, seed: int) -> Iterable[DatasetItem]:
        """The same ones for the same seed."""
        wanted = set(draws(seed, "examples", 0).sample(range(dataset.count), MOST_EXAMPLES))
        for first in range(0, dataset.count, MOST_EXAMPLES):
            for place, item in enumerate(self._items.slice(dataset, first, MOST_EXAMPLES), first):
                if place in wanted:
                    yield item

    def _models(self, names: set[str]) -> dict[str, Model]:
        """The oldest of each name, as jobs find them."""
        oldest = self._oldest(names)
        for name in sorted(names - set(oldest)):
            raise UnknownReference("model", name)
        return oldest

    def _oldest(self, names: set[str]) -> dict[str, Model]:
        oldest: dict[str, Model] = {}
        for model in self._storage.models.find(Where(equals={"name": sorted(names)}), Page(limit=10_000)):
            oldest.setdefault(model.name, model)
        return oldest

    def _with_others(self, models: dict[str, Model]) -> dict[str, Model]:
        """With those that may answer in their place, and in the place of these; names that nobody has are left out."""
        known, asked = dict(models), set(models)
        new = models
        while names := {name for model in new.values() for name in _others(model)} - asked:
            asked |= names
            new = self._oldest(names)
            known |= new
        return known


def arms_of(run: Run, terms: SearchTerms, judges: set[str]) -> tuple[Combination, ...]:
    """The combinations asked for, else each working model with the meta model.

    Who names the judge that all share has no judge of its own; such a combination is the same as one that names none.
    """
    if not terms.combinations:
        return tuple(Combination(name, run.meta_model) for name in dict.fromkeys(run.working_models))
    if not any(arm.judge for arm in terms.combinations):
        return terms.combinations
    known = (replace(arm, judge=None) if {arm.judge} == judges else arm for arm in terms.combinations)
    return tuple(dict.fromkeys(known))


def judged_by(metrics: Sequence[Metric], judge: str | None, field: str) -> Sequence[Metric]:
    """The metrics with another model as the judge of all that have one. Raises InvalidField where none has."""
    if judge is None:
        return metrics
    if not any(metric.kind in JUDGES for metric in metrics):
        raise InvalidField(field, "the evaluator asks no judge")
    return [
        replace(metric, parameters={**metric.parameters, "model": judge}) if metric.kind in JUDGES else metric
        for metric in metrics
    ]


def _own_template(text: str) -> str | None:
    """A meta prompt that says where prompt and feedback are to stand is used as it is; any other one is not."""
    try:
        check_template("metaPromptId", text)
    except InvalidField:
        return None
    return text


def _example(item: DatasetItem) -> Example:
    return Example(id=item.id, input=item.input, expected=item.expected, tags=item.tags, weight=item.weight)


def _limit(model: Model) -> int | None:
    return model.max_completion_token if model.max_completion_token is not None else model.max_token


def _others(model: Model) -> tuple[str, ...]:
    return (*model.fallbacks, *(target.model for target in model.targets))


def tariff_of(name: str, models: Mapping[str, Model]) -> Tariff:
    """What calls of the model cost at most, whichever of `models` answers in its place."""
    names, left = {name: None}, [name]
    while left:
        new = [other for other in _others(models[left.pop()]) if other in models and other not in names]
        names |= dict.fromkeys(new)
        left += new
    model, *others = (models[each] for each in names)
    limits = [_limit(each) for each in (model, *others) if each.sdk != ROUTER]
    known = [limit for limit in limits if limit is not None]
    longest = max(known) if known and len(known) == len(limits) else None
    return Tariff(model.prices, longest, tuple(each.prices for each in others))


def _common_currency(terms: SearchTerms, models: Sequence[Model]) -> str | None:
    """Raises InvalidField for an amount that the models' prices cannot be held to."""
    currencies = {model.prices.currency for model in models if model.prices.input or model.prices.output}
    amount = terms.budget.amount
    if amount is not None and currencies - {amount.currency}:
        told = ", ".join(sorted(currencies))
        raise InvalidField("budget.amount", f"is in {amount.currency}, and the models are priced in {told}")
    return next(iter(currencies)) if len(currencies) == 1 else None
