"""Which sdk names exist, and a loop's providers.

A plug-in is an entry point of the group `metasync.providers`: its name is the sdk's name, its object a class that is a
Provider and is made with one argument, the event loop's Transport.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, cast

import structlog

from engine.errors import UnknownReference
from engine.llm import Provider
from engine.records.values import ROUTER
from llm_workers.providers.compatible import COMPATIBLE

if TYPE_CHECKING:
    from llm_workers.transport import Transport

log = structlog.get_logger(__name__)

GROUP = "metasync.providers"
BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "OpenAI": "llm_workers.providers.openai:OpenAiProvider",
        "AzureOpenAI": "llm_workers.providers.azure_openai:AzureOpenAiProvider",
        "Anthropic": "llm_workers.providers.anthropic:AnthropicProvider",
        "Gemini": "llm_workers.providers.gemini:GeminiProvider",
        "ChatCompletionsClient": "llm_workers.providers.chat_completions:ChatCompletionsProvider",
        "test": "llm_workers.providers.scripted:ScriptedProvider",
    }
)
NAMES = frozenset(BUILT_IN) | frozenset(COMPATIBLE)


class ProviderClass(Protocol):
    """What a name stands for. `key_variable`, which plug-ins need not have, is the usual name of the vendor's key."""

    needs_key: bool

    def __call__(self, transport: "Transport", /) -> Provider: ...


def installed() -> Iterable[EntryPoint]:
    return entry_points(group=GROUP)


class Registry:
    """Built-in providers and plug-ins, found on first use. Safe to use from several threads."""

    def __init__(self, discover: Callable[[], Iterable[EntryPoint]] = installed) -> None:
        self._discover = discover
        self._lock = threading.RLock()
        self._plug_ins: dict[str, ProviderClass] | None = None
        self._problems: dict[str, str] = {}

    def names(self) -> frozenset[str]:
        return NAMES | frozenset(self._found())

    def needs_key(self, sdk: str) -> bool:
        """Raises UnknownReference for a name that is not registered."""
        return self.load(sdk).needs_key

    def key_variable(self, sdk: str) -> str | None:
        """The usual name of the vendor's key; None where there is none. Raises UnknownReference as above."""
        name: str | None = getattr(self.load(sdk), "key_variable", None)
        return name

    def problems(self) -> Mapping[str, str]:
        """Plug-ins that cannot be used, by name, and why."""
        self._found()
        return dict(self._problems)

    def load(self, sdk: str) -> ProviderClass:
        """The provider's class, imported but not its vendor's SDK. Raises UnknownReference."""
        if sdk in COMPATIBLE:
            return cast(ProviderClass, COMPATIBLE[sdk])
        if sdk in BUILT_IN:
            module, _, name = BUILT_IN[sdk].partition(":")
            return cast(ProviderClass, getattr(import_module(module), name))
        plug_in = self._found().get(sdk)
        if plug_in is None:
            raise UnknownReference("sdk", sdk)
        return plug_in

    def create(self, sdk: str, transport: "Transport | None" = None) -> Provider:
        """A provider for the running event loop. One that is made without a transport gets its own and closes it."""
        if transport is None:
            from llm_workers.transport import Transport as New  # noqa: PLC0415 - aiohttp takes 0.3 s to import

            transport = New()
        return self.load(sdk)(transport)

    def _found(self) -> dict[str, ProviderClass]:
        with self._lock:
            if self._plug_ins is None:
                self._plug_ins = {}
                for entry in self._discovered():
                    self._take(entry, self._plug_ins)
            return self._plug_ins

    def _discovered(self) -> list[EntryPoint]:
        try:
            return list(self._discover())
        except Exception as error:  # noqa: BLE001 - the metadata of any installed package may be broken
            self._problems[GROUP] = f"{type(error).__name__}: {error}"[:500]
            return []

    def _take(self, entry: EntryPoint, into: dict[str, ProviderClass]) -> None:
        try:
            if entry.name in NAMES or entry.name == ROUTER or entry.name in into:
                raise ValueError("the name is taken")  # noqa: TRY301 - one place that writes problems down
            plug_in = entry.load()
            if not isinstance(plug_in.needs_key, bool) or not callable(plug_in.complete):
                raise TypeError("not a provider class")  # noqa: TRY301 - as above
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plug-in may raise whatever it likes
            self._problems[entry.name] = f"{type(error).__name__}: {error}"[:500]
        else:
            into[entry.name] = plug_in


class ProviderSet:
    """One event loop's providers: each made once, all on one transport, so one connection pool per endpoint."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._making = asyncio.Lock()
        self._transport: Transport | None = None
        self._providers: dict[str, Provider] = {}

    def needs_key(self, sdk: str) -> bool:
        return self._registry.needs_key(sdk)

    def key_variable(self, sdk: str) -> str | None:
        return self._registry.key_variable(sdk)

    async def get(self, sdk: str) -> Provider:
        """Imports what it needs in a thread, the first time. Raises UnknownReference."""
        provider = self._providers.get(sdk)
        if provider is None:
            async with self._making:
                provider = self._providers.get(sdk) or await self._made(sdk)
                self._providers[sdk] = provider
        return provider

    async def aclose(self) -> None:
        for sdk, provider in self._providers.items():
            try:
                await provider.aclose()
            except Exception as error:  # noqa: BLE001 - a plug-in that breaks must not keep the others open
                log.warning("provider_not_closed", sdk=sdk, error_type=type(error).__name__)
        if self._transport is not None:
            await self._transport.aclose()

    async def _made(self, sdk: str) -> Provider:
        await asyncio.to_thread(self._registry.load, sdk)
        if self._transport is None:
            module = await asyncio.to_thread(import_module, "llm_workers.transport")
            self._transport = module.Transport()
        return self._registry.create(sdk, self._transport)
