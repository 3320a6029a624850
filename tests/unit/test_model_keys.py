"""Which key a model's calls carry."""

import asyncio
from pathlib import Path

import pytest

from engine.llm import ProviderRefusedKey
from engine.records.values import Model
from llm_workers.keys import Keys
from llm_workers.prompting import is_default
from llm_workers.providers.registry import ProviderSet, Registry
from tests.support.completing import completing
from tests.support.factories import make_model
from utilities.secrets import ProviderSecrets

ENVIRONMENT = {"GROQ_API_KEY": "usual", "MINE": "mine", "NAMED_KEY": "by model name", "OLLAMA_API_KEY": "local"}


async def _inline(function, *args):  # type: ignore[no-untyped-def]
    return function(*args)


def key_of(model: Model) -> str | None:
    keys = Keys(ProviderSet(Registry()), ProviderSecrets(ENVIRONMENT), _inline)
    return asyncio.run(keys.of(model))


@pytest.mark.parametrize(
    ("sdk", "key", "name", "expected"),
    [
        ("Groq", "MINE", "m", "mine"),
        ("Groq", "default", "m", "usual"),
        ("Groq", " Default ", "m", "usual"),
        ("Groq", "missing", "named", "by model name"),
        ("Ollama", "default", "m", "local"),
        ("Ollama", "none", "m", None),
        ("test", "MINE", "m", None),
    ],
)
def test_which_key(sdk: str, key: str, name: str, expected: str | None) -> None:
    """The model's own name for it, the vendor's usual one for `default`, the model's name; none if none is needed."""
    assert key_of(make_model(sdk=sdk, key=key, name=name)) == expected


def test_a_missing_key_says_where_it_is_looked_for() -> None:
    """A vendor that needs a key and has none: the error names the variables, the usual one for `default`."""
    with pytest.raises(ProviderRefusedKey, match="MISTRAL_API_KEY or M_KEY"):
        key_of(make_model(sdk="Mistral", key="default", name="m"))


@pytest.mark.parametrize(("field", "expected"), [("default", True), ("DEFAULT ", True), ("http://default", False)])
def test_what_is_default(field: str, expected: bool) -> None:
    """The word alone, in any case."""
    assert is_default(field) is expected


def test_a_job_on_a_server_without_a_key(tmp_path: Path) -> None:
    """A job for a local server is done without any key."""
    with completing(tmp_path) as lab:
        lab.model(sdk="LMStudio", endpoint=f"{lab.fake.url}/lmstudio/v1", key="none")
        assert lab.run(lab.job()).result == {"answer": "ok", "score": 1}
