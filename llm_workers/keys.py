"""Models' provider keys, looked up at call time."""

from engine.llm import SecretSource
from engine.records.values import Model
from llm_workers.prompting import is_default, no_key
from llm_workers.providers.registry import ProviderSet
from utilities.hop import Hop


class Keys:
    """For one event loop. `hop` is for look-ups that may block."""

    def __init__(self, providers: ProviderSet, secrets: SecretSource, hop: Hop) -> None:
        self._providers = providers
        self._secrets = secrets
        self._hop = hop

    async def of(self, model: Model) -> str | None:
        """The key itself; None for a provider that does without. Raises ProviderRefusedKey and UnknownReference."""
        usual = self._providers.key_variable(model.sdk)
        needed = self._providers.needs_key(model.sdk)
        if not needed and usual is None:
            return None
        name = usual if usual is not None and is_default(model.key) else model.key
        wanted = (name, model.name, model.service)
        # Only a model with a service may be looked up in the keyring, which may block.
        key = (
            await self._hop(self._secrets.provider_key, *wanted)
            if model.service
            else self._secrets.provider_key(*wanted)
        )
        if key is None and needed:
            raise no_key(model, name)
        return key
