"""Models, prompts and evaluators as handlers see them: at most a second old, read once however many ask at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

from engine.errors import UnknownReference
from engine.jobs.queue import Page
from engine.records.evaluators import Evaluator
from engine.records.store import PromptStore, RecordStore, Where
from engine.records.values import Model, Prompt
from utilities.clock import Clock
from utilities.hop import Hop

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

FRESH_SECONDS = 1.0
_MOST_ENTRIES = 4096
_MOST_MODELS = 10_000


class Recent(Generic[K, V]):
    """Answers of `load`, kept for `seconds`. For one event loop.

    Whoever asks for a key that is being loaded waits for the same load. None and errors are not kept: what has just
    been created is found at once.
    """

    def __init__(
        self, load: Callable[[K], Awaitable[V | None]], monotonic: Callable[[], float], seconds: float = FRESH_SECONDS
    ) -> None:
        self._load = load
        self._monotonic = monotonic
        self._seconds = seconds
        self._known: dict[K, tuple[float, V]] = {}
        self._loading: dict[K, asyncio.Future[V | None]] = {}

    async def get(self, key: K) -> V | None:
        known = self._known.get(key)
        if known is not None and known[0] > self._monotonic():
            return known[1]
        loading = self._loading.get(key)
        if loading is None:
            loading = asyncio.ensure_future(self._load(key))
            self._loading[key] = loading
            loading.add_done_callback(lambda done: self._loaded(key, done))
        # Shielded: one that is cancelled must not take the answer from the others.
        return await asyncio.shield(loading)

    def _loaded(self, key: K, done: "asyncio.Future[V | None]") -> None:
        self._loading.pop(key, None)
        self._known.pop(key, None)
        if done.cancelled() or done.exception() is not None:
            return
        value = done.result()
        if value is not None:
            if len(self._known) >= _MOST_ENTRIES:
                self._known.clear()
            self._known[key] = (self._monotonic() + self._seconds, value)


class Catalogue:
    """For one event loop; storage is reached by `hop`. Storage errors pass through.

    What was read is used for `seconds`, 0: by those alone who ask while it is read.
    """

    def __init__(
        self,
        *,
        models: RecordStore[Model],
        prompts: PromptStore,
        evaluators: RecordStore[Evaluator],
        hop: Hop,
        clock: Clock,
        seconds: float = FRESH_SECONDS,
    ) -> None:
        self._model_store = models
        self._prompt_store = prompts
        self._evaluator_store = evaluators
        self._hop = hop
        self._models: Recent[str, Model] = Recent(self._find_model, clock.monotonic, seconds)
        self._all_models: Recent[None, Mapping[str, Model]] = Recent(self._find_all_models, clock.monotonic, seconds)
        self._evaluators: Recent[str, Evaluator] = Recent(self._find_evaluator, clock.monotonic, seconds)
        self._prompts: Recent[tuple[str, ...], tuple[Prompt, ...]] = Recent(
            self._find_prompts, clock.monotonic, seconds
        )

    async def model(self, name: str) -> Model:
        """The oldest live model of that name. Raises UnknownReference."""
        model = await self._models.get(name)
        if model is None:
            raise UnknownReference("model", f"{name} (deleted or renamed? create it, or change the job's model)")
        return model

    async def models(self) -> Mapping[str, Model]:
        """The oldest live model of each name, of the oldest 10,000 models; a new one when these are read anew."""
        return await self._all_models.get(None) or {}

    async def prompts(self, ids: tuple[str, ...]) -> tuple[Prompt, ...]:
        """The prompts of these ids, in their order. Raises UnknownReference for the first that does not exist."""
        if not ids:
            return ()
        prompts = await self._prompts.get(ids)
        if prompts is None:
            await self._name_missing(ids)
            raise UnknownReference("prompt", ", ".join(ids))
        return prompts

    async def evaluator(self, evaluator_id: str) -> Evaluator:
        """Raises UnknownReference."""
        evaluator = await self._evaluators.get(evaluator_id)
        if evaluator is None:
            raise UnknownReference("evaluator", f"{evaluator_id} (deleted? change the job's evaluator)")
        return evaluator

    async def _find_evaluator(self, evaluator_id: str) -> Evaluator | None:
        return await self._hop(self._evaluator_store.get, evaluator_id)

    async def _find_model(self, name: str) -> Model | None:
        found = await self._hop(self._model_store.find, Where(equals={"name": [name]}), Page(limit=1))
        return found[0] if found else None

    async def _find_all_models(self, _: None) -> Mapping[str, Model]:
        found = await self._hop(self._model_store.find, Where(), Page(limit=_MOST_MODELS))
        return MappingProxyType({model.name: model for model in reversed(found)})

    async def _find_prompts(self, ids: tuple[str, ...]) -> tuple[Prompt, ...] | None:
        found = await self._hop(self._prompt_store.get_many, list(dict.fromkeys(ids)))
        return tuple(found[each] for each in ids) if found.keys() >= set(ids) else None

    async def _name_missing(self, ids: tuple[str, ...]) -> None:
        found = await self._hop(self._prompt_store.get_many, list(dict.fromkeys(ids)))
        for each in ids:
            if each not in found:
                raise UnknownReference("prompt", f"{each} (deleted? change the job's prompts and redrive it)")
