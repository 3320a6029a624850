"""Tries a model out: one tiny call, with the key, transport and mapping of errors that its jobs have."""

import random
from collections.abc import Awaitable, Callable, Mapping

import structlog

from engine.errors import MetasyncError, UnknownReference
from engine.llm import Completion, PermanentProviderError, SecretSource, Timeouts
from engine.records.control import Trial
from engine.records.values import ROUTER, Model
from llm_workers.keys import Keys
from llm_workers.prompting import completion_request, token_limit
from llm_workers.providers.registry import ProviderSet
from llm_workers.routing import Standing, candidates, fails_over
from utilities.clock import Clock
from utilities.hop import Hop
from utilities.ids import ObjectIds

log = structlog.get_logger(__name__)

_SYSTEM = "You answer with a single word."
_USER = "Say OK."
_MOST_TOKENS = 64
_MOST_TRIED = 10
_TIMEOUTS = Timeouts(connect=5.0, read=30.0, total=30.0)


class Trials:
    """Implements engine.records.control.ModelTrials. For one event loop; closes its providers with itself."""

    def __init__(
        self,
        *,
        providers: ProviderSet,
        models: Callable[[], Awaitable[Mapping[str, Model]]],
        secrets: SecretSource,
        clock: Clock,
        ids: ObjectIds,
        hop: Hop,
        timeouts: Timeouts = _TIMEOUTS,
        rng: random.Random | None = None,
    ) -> None:
        """`models` are all of them by name, among which routers choose."""
        self._providers = providers
        self._models = models
        self._rng = rng or random.Random()
        self._keys = Keys(providers, secrets, hop)
        self._clock = clock
        self._ids = ids
        self._timeouts = timeouts

    async def run(self, model: Model) -> Trial:
        began = self._clock.monotonic()
        called: list[Model] = []
        completion: Completion | None = None
        error: MetasyncError | None = UnknownReference("model", f"any that router {model.name} could choose")
        for candidate in await self._candidates(model):
            called.append(candidate)
            completion, error = await self._outcome(candidate)
            if error is None or not fails_over(error, 0.0, None):
                break
        duration = self._clock.monotonic() - began
        error_type = None if error is None else type(error).__name__
        log.info("model_tried", model=model.name, sdk=model.sdk, duration=duration, error_type=error_type)
        return Trial(duration=duration, called=tuple(called), completion=completion, error=error)

    async def aclose(self) -> None:
        await self._providers.aclose()

    async def _candidates(self, model: Model) -> tuple[Model, ...]:
        """The model itself and not its fallbacks, since it is what is tried out; for a router all that a job has."""
        if model.sdk != ROUTER:
            return (model,)
        return candidates(model, await self._models(), lambda _: Standing(), self._rng)[:_MOST_TRIED]

    async def _outcome(self, model: Model) -> tuple[Completion | None, MetasyncError | None]:
        try:
            return await self._called(model), None
        except MetasyncError as failed:
            return None, failed
        except Exception as failed:  # noqa: BLE001 - a plug-in may raise whatever it likes, and that is the answer
            return None, PermanentProviderError(f"{model.sdk}: the provider failed with {type(failed).__name__}")

    async def _called(self, model: Model) -> Completion:
        provider = await self._providers.get(model.sdk)
        request = completion_request(
            model,
            await self._keys.of(model),
            system=_SYSTEM,
            user=_USER,
            temperature=model.min_temperature,
            response_format="text",
            attempt_id=f"trial-{self._ids.new()}",
            timeouts=self._timeouts,
            max_tokens=min(token_limit(model) or _MOST_TOKENS, _MOST_TOKENS),
        )
        return await provider.complete(request)
