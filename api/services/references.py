"""Whether the prompts and models that jobs name exist and may be used: two queries, however many jobs ask."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import UnknownReference
from engine.jobs.queue import Page
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
    """Ids of prompts and names of models, in the order in which they are asked for."""

    prompts: tuple[str, ...]
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class User:
    """On whose behalf something is used: a client's own and all public prompts, or `any_prompt` for an admin."""

    client_id: str
    any_prompt: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What exists of what was asked for: names of models, and prompts with their owner ("" for public ones)."""

    models: frozenset[str]
    prompts: Mapping[str, str]

    def check(self, wanted: Wanted, user: User) -> None:
        """Raises UnknownReference for the first prompt or model that `user` may not name."""
        for prompt in wanted.prompts:
            owner = self.prompts.get(prompt)
            if owner is None or not (user.any_prompt or owner in (_PUBLIC, user.client_id)):
                raise UnknownReference("prompt", prompt)
        for name in wanted.models:
            if name not in self.models:
                raise UnknownReference("model", name)


def wanted_by(fields: Mapping[str, Any]) -> Wanted:
    """What a job's fields (by their domain names) refer to; unset ones refer to nothing."""
    prompts = (*(fields.get("working_prompts") or ()), *(fields.get(name) for name in PROMPT_FIELDS))
    models = (fields.get(name) for name in MODEL_FIELDS)
    return Wanted(tuple(name for name in prompts if name), tuple(name for name in models if name))


class Catalogue:
    """Which model names and prompt ids are live. What exists is remembered for SECONDS; what does not is asked anew.

    `forget` is for whoever changes a prompt or a model in this process. Safe in any thread.
    """

    def __init__(self, models: RecordStore[Model], prompts: PromptStore, clock: Clock) -> None:
        self._models = models
        self._prompts = prompts
        self._clock = clock
        self._model_until: dict[str, float] = {}
        self._prompt_until: dict[str, tuple[str, float]] = {}
        self._generation = 0

    def forget(self) -> None:
        self._generation += 1
        self._model_until, self._prompt_until = {}, {}

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
        return Known(frozenset(wanted.models), owners)

    def known(self, wanted: Iterable[Wanted]) -> Known:
        """The answer for all of `wanted` together, with at most one query for each kind."""
        asked = list(wanted)
        names = {name for one in asked for name in one.models}
        ids = {prompt for one in asked for prompt in one.prompts}
        return self.remembered(Wanted(tuple(ids), tuple(names))) or self._asked(names, ids)

    def _asked(self, names: set[str], ids: set[str]) -> Known:
        until = self._clock.monotonic() + SECONDS
        generation = self._generation
        prompts = self._prompts.get_many(sorted(ids)) if ids else {}
        owners = {key: _PUBLIC if prompt.is_public else prompt.client_id or "" for key, prompt in prompts.items()}
        known = Known(self._live_models(names) if names else frozenset(), owners)
        if generation == self._generation:
            self._remember(known, until)
        return known

    def _remember(self, known: Known, until: float) -> None:
        if len(self._model_until) + len(self._prompt_until) > _LARGEST:
            self._model_until, self._prompt_until = {}, {}
        self._model_until.update(dict.fromkeys(known.models, until))
        self._prompt_until.update({prompt: (owner, until) for prompt, owner in known.prompts.items()})

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
