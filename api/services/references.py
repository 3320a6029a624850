"""Whether what jobs name exists and may be used: a query for each kind of it, however many jobs ask."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.errors import InvalidField, UnknownReference
from engine.evaluation.values import MetricKind
from engine.jobs.queue import Page
from engine.records.evaluators import Evaluator
from engine.records.store import PromptStore, RecordStore, Where
from engine.records.values import Model
from utilities.clock import Clock

SECONDS = 1.0
"""How long an answer may be relied on: a prompt deleted through another replica can still be named for so long."""

_PAGE = 10_000
_LARGEST = 10_000
_PUBLIC = ""

PROMPT_FIELDS = ("eval_prompt", "meta_prompt")
MODEL_FIELDS = ("model", "eval_model", "meta_model")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Ids of prompts, names of models and ids of evaluators, in the order in which they are asked for."""

    prompts: tuple[str, ...]
    models: tuple[str, ...]
    evaluators: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class User:
    """On whose behalf something is used: a client's own, and all public prompts, or `any_prompt` for an admin, who may
    name every evaluator too."""

    client_id: str
    any_prompt: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What exists of what was asked for: names of models, prompts with their owner ("" for public ones), evaluators."""

    models: frozenset[str]
    prompts: Mapping[str, str]
    evaluators: Mapping[str, Evaluator] = field(default_factory=dict)

    def check(self, wanted: Wanted, user: User) -> None:
        """Raises UnknownReference for the first that `user` may not name, and InvalidField for an evaluator that cannot
        score a single answer."""
        for prompt in wanted.prompts:
            owner = self.prompts.get(prompt)
            if owner is None or not (user.any_prompt or owner in (_PUBLIC, user.client_id)):
                raise UnknownReference("prompt", prompt)
        for name in wanted.models:
            if name not in self.models:
                raise UnknownReference("model", name)
        for name in wanted.evaluators:
            evaluator = self.evaluators.get(name)
            if evaluator is None or not (user.any_prompt or evaluator.client_id == user.client_id):
                raise UnknownReference("evaluator", name)
            _check_scores_one(evaluator)


def _check_scores_one(evaluator: Evaluator) -> None:
    pairwise = next((each for each in evaluator.metrics if each.kind is MetricKind.PAIRWISE_JUDGE), None)
    if pairwise is not None:
        reason = f"its metric {pairwise.name} is a pairwise judge, and a single job has nothing to compare with"
        raise InvalidField("evaluator", reason)


def wanted_by(fields: Mapping[str, Any]) -> Wanted:
    """What a job's fields (by their domain names) refer to; unset ones refer to nothing."""
    prompts = (*(fields.get("working_prompts") or ()), *(fields.get(name) for name in PROMPT_FIELDS))
    models = (fields.get(name) for name in MODEL_FIELDS)
    evaluator = fields.get("evaluator")
    return Wanted(
        tuple(name for name in prompts if name),
        tuple(name for name in models if name),
        (evaluator,) if evaluator else (),
    )


class Catalogue:
    """Which names and ids are live. What exists is remembered for SECONDS; what does not is asked anew.

    `forget` is for whoever changes a prompt, a model or an evaluator in this process. Safe in any thread.
    """

    def __init__(
        self, models: RecordStore[Model], prompts: PromptStore, evaluators: RecordStore[Evaluator], clock: Clock
    ) -> None:
        self._models = models
        self._prompts = prompts
        self._evaluators = evaluators
        self._clock = clock
        self._model_until: dict[str, float] = {}
        self._prompt_until: dict[str, tuple[str, float]] = {}
        self._evaluator_until: dict[str, tuple[Evaluator, float]] = {}
        self._generation = 0

    def forget(self) -> None:
        self._generation += 1
        self._model_until, self._prompt_until, self._evaluator_until = {}, {}, {}

    def remembered(self, wanted: Wanted) -> Known | None:
        """The answer if the storage need not be asked for it."""
        now = self._clock.monotonic()
        owners = {}
        for prompt in wanted.prompts:
            owner, until = self._prompt_until.get(prompt, (_PUBLIC, 0.0))
            if until <= now:
                return None
            owners[prompt] = owner
        if any(self._model_until.get(name, 0.0) <= now for name in wanted.models):
            return None
        evaluators = {}
        for name in wanted.evaluators:
            found = self._evaluator_until.get(name)
            if found is None or found[1] <= now:
                return None
            evaluators[name] = found[0]
        return Known(frozenset(wanted.models), owners, evaluators)

    def known(self, wanted: Iterable[Wanted]) -> Known:
        """The answer for all of `wanted` together, with at most one query for each kind."""
        asked = list(wanted)
        names = {name for one in asked for name in one.models}
        ids = {prompt for one in asked for prompt in one.prompts}
        scorers = {evaluator for one in asked for evaluator in one.evaluators}
        return self.remembered(Wanted(tuple(ids), tuple(names), tuple(scorers))) or self._asked(names, ids, scorers)

    def _asked(self, names: set[str], ids: set[str], scorers: set[str]) -> Known:
        until = self._clock.monotonic() + SECONDS
        generation = self._generation
        prompts = self._prompts.get_many(sorted(ids)) if ids else {}
        owners = {key: _PUBLIC if prompt.is_public else prompt.client_id or "" for key, prompt in prompts.items()}
        evaluators = self._evaluators.get_many(sorted(scorers)) if scorers else {}
        known = Known(self._live_models(names) if names else frozenset(), owners, evaluators)
        if generation == self._generation:
            self._remember(known, until)
        return known

    def _remember(self, known: Known, until: float) -> None:
        if len(self._model_until) + len(self._prompt_until) + len(self._evaluator_until) > _LARGEST:
            self._model_until, self._prompt_until, self._evaluator_until = {}, {}, {}
        self._model_until.update(dict.fromkeys(known.models, until))
        self._prompt_until.update({prompt: (owner, until) for prompt, owner in known.prompts.items()})
        self._evaluator_until.update({name: (found, until) for name, found in known.evaluators.items()})

    def _live_models(self, names: set[str]) -> frozenset[str]:
        where = Where(equals={"name": sorted(names)})
        found: set[str] = set()
        skip = 0
        while True:
            page = self._models.find(where, Page(limit=_PAGE, skip=skip))
            found.update(model.name for model in page)
            if len(page) < _PAGE:
                return frozenset(found)
            skip += _PAGE
