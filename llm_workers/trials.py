"""Tries a model out: one tiny call, with the key, transport and mapping of errors that its jobs have."""

import structlog

from engine.errors import MetasyncError
from engine.llm import Completion, PermanentProviderError, SecretSource, Timeouts
from engine.records.control import Trial
from engine.records.values import Model
from llm_workers.keys import Keys
from llm_workers.prompting import completion_request, token_limit
from llm_workers.providers.registry import ProviderSet
from utilities.clock import Clock
from utilities.hop import Hop
from utilities.ids import ObjectIds

log = structlog.get_logger(__name__)

_SYSTEM = "You answer with a single word."
_USER = "Say OK."
_MOST_TOKENS = 64
_TIMEOUTS = Timeouts(connect=5.0, read=30.0, total=30.0)


class Trials:
    """Implements engine.records.control.ModelTrials. For one event loop; closes its providers with itself."""

    def __init__(
        self,
        *,
        providers: ProviderSet,
        secrets: SecretSource,
        clock: Clock,
        ids: ObjectIds,
        hop: Hop,
        timeouts: Timeouts = _TIMEOUTS,
    ) -> None:
        self._providers = providers
        self._keys = Keys(providers, secrets, hop)
        self._clock = clock
        self._ids = ids
        self._timeouts = timeouts

    async def run(self, model: Model) -> Trial:
        began = self._clock.monotonic()
        completion: Completion | None = None
        error: MetasyncError | None = None
        try:
            completion = await self._called(model)
        except MetasyncError as failed:
            error = failed
        except Exception as failed:  # noqa: BLE001 - a plug-in may raise whatever it likes, and that is the answer
            error = PermanentProviderError(f"{model.sdk}: the provider failed with {type(failed).__name__}")
        duration = self._clock.monotonic() - began
        error_type = None if error is None else type(error).__name__
        log.info("model_tried", model=model.name, sdk=model.sdk, duration=duration, error_type=error_type)
        return Trial(duration=duration, completion=completion, error=error)

    async def aclose(self) -> None:
        await self._providers.aclose()

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
