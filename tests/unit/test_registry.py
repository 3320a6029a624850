"""Which providers exist, and that a broken plug-in harms nobody."""

import asyncio
import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest

from engine.errors import UnknownReference
from engine.llm import Completion, CompletionRequest, Usage
from llm_workers.providers.compatible import COMPATIBLE
from llm_workers.providers.registry import GROUP, ProviderSet, Registry
from llm_workers.transport import Transport

CONTRACT = frozenset({"OpenAI", "AzureOpenAI", "Anthropic", "Gemini", "ChatCompletionsClient", "test"})
OURS = CONTRACT | frozenset(COMPATIBLE)
LOCAL = frozenset({"LlamaCpp", "LMStudio", "Ollama", "SGLang", "vLLM"})


class Leaving(type):
    """A class whose attribute `leaves` ends the process, as some modules do when they are imported."""

    @property
    def leaves(cls) -> object:
        raise SystemExit(3)


class Outsider(metaclass=Leaving):
    """A provider as a plug-in brings it."""

    needs_key: ClassVar[bool] = False
    closed: ClassVar[int] = 0

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    async def complete(self, request: CompletionRequest) -> Completion:
        return Completion(text=request.user, usage=Usage())

    async def aclose(self) -> None:
        Outsider.closed += 1


NOT_A_PROVIDER = object()


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=GROUP)


def registry(*entries: EntryPoint) -> Registry:
    return Registry(lambda: entries)


def test_the_contracts_names() -> None:
    """The sdk names of the contract are registered, all but `test` need a key."""
    built_in = registry()

    assert built_in.names() >= CONTRACT
    assert {name for name in CONTRACT if not built_in.needs_key(name)} == {"test"}
    assert built_in.problems() == {}


def test_the_compatible_vendors_names() -> None:
    """Vendors that speak OpenAI's format are sdk names too; each has a usual key, which local servers can lack."""
    built_in = registry()

    assert built_in.names() == OURS
    assert {name for name in COMPATIBLE if not built_in.needs_key(name)} == LOCAL
    keys = {name: built_in.key_variable(name) for name in COMPATIBLE}
    assert keys["Groq"] == "GROQ_API_KEY"
    assert len(set(keys.values())) == len(keys)
    assert built_in.key_variable("OpenAI") == "OPENAI_API_KEY"
    assert built_in.key_variable("test") is None


def test_installed_plug_ins_are_looked_for() -> None:
    """Without being told, the registry looks at what is installed; nothing installed here is broken."""
    found = Registry()

    assert found.names() >= CONTRACT
    assert found.problems() == {}


def test_a_plug_in() -> None:
    """An entry point of the group adds a provider under its name."""
    plugged = registry(entry("outside", f"{__name__}:Outsider"))

    assert plugged.names() == OURS | {"outside"}
    assert not plugged.needs_key("outside")
    assert plugged.key_variable("outside") is None
    assert plugged.problems() == {}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no.such.module:Thing", "ModuleNotFoundError"),
        (f"{__name__}:NoSuchName", "AttributeError"),
        (f"{__name__}:NOT_A_PROVIDER", "AttributeError"),
        ("builtins:int", "AttributeError"),
        (f"{__name__}:Outsider.leaves", "SystemExit"),
    ],
)
def test_a_broken_plug_in(value: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is reported with its reason, nothing is printed or raised, and the others are there."""
    plugged = registry(entry("broken", value), entry("outside", f"{__name__}:Outsider"))

    assert plugged.names() == OURS | {"outside"}
    assert plugged.problems()["broken"].startswith(reason)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(UnknownReference):
        plugged.needs_key("broken")


def test_broken_metadata() -> None:
    """Where the installed packages cannot be looked through, the built-in providers serve and the reason is told."""

    def broken() -> list[EntryPoint]:
        raise ValueError("no metadata")

    alone = Registry(broken)

    assert alone.names() == OURS
    assert alone.problems() == {GROUP: "ValueError: no metadata"}


class Clinging(Outsider):
    """A provider that cannot be closed."""

    async def aclose(self) -> None:
        raise RuntimeError("no")


def test_one_that_cannot_be_closed() -> None:
    """It does not keep the others and the connections open."""

    async def check() -> int:
        clinging, outside = entry("clinging", f"{__name__}:Clinging"), entry("outside", f"{__name__}:Outsider")
        providers = ProviderSet(registry(clinging, outside))
        await providers.get("clinging")
        await providers.get("outside")
        closed = Outsider.closed
        await providers.aclose()
        return Outsider.closed - closed

    assert asyncio.run(check()) == 1


def test_a_taken_name() -> None:
    """A plug-in cannot replace a built-in provider, nor another plug-in, nor be what routers are known by."""
    outside = f"{__name__}:Outsider"
    taken = ("OpenAI", "Groq", "router", "outside")
    plugged = registry(entry("outside", outside), *(entry(name, outside) for name in taken))

    assert plugged.problems() == dict.fromkeys(taken, "ValueError: the name is taken")
    assert plugged.needs_key("OpenAI")


def test_one_provider_per_sdk_and_loop() -> None:
    """A loop's set makes each provider once, on one shared transport, and closes them all."""

    async def check() -> None:
        providers = ProviderSet(registry(entry("outside", f"{__name__}:Outsider")))
        first, second, other = await asyncio.gather(
            providers.get("outside"), providers.get("outside"), providers.get("OpenAI")
        )
        assert first is second
        assert isinstance(first, Outsider)
        assert vars(other)["_transport"] is first.transport
        with pytest.raises(UnknownReference):
            await providers.get("nothing")
        closed = Outsider.closed
        await providers.aclose()
        assert Outsider.closed == closed + 1

    asyncio.run(check())


def test_what_is_imported_when() -> None:
    """Names and key needs cost no vendor's SDK and no HTTP client: those come with the first call."""
    program = (
        "import sys\n"
        "from llm_workers.completion import CompletionHandler\n"
        "from llm_workers.providers.registry import Registry\n"
        "registry = Registry()\n"
        "for name in registry.names(): registry.needs_key(name)\n"
        "print([name for name in ('aiohttp', 'openai', 'anthropic', 'google.genai', 'httpx2', 'jsonschema', "
        "'json_repair', 'keyring') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.strip() == "[]"
