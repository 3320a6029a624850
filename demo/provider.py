"""Which provider serves the demo: chosen by the environment, on the same path for all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MODEL_NAME = "demo-model"
OPENAI_URL = "https://api.openai.com/v1"
ANTHROPIC_URL = "https://api.anthropic.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A provider and a model. `key` names the environment variable that holds the secret; prices are per million."""

    sdk: str
    endpoint: str
    deployment: str
    key: str
    input_price: float
    output_price: float
    why: str

    def body(self) -> dict[str, Any]:
        """The body of POST /models."""
        return {
            "name": MODEL_NAME,
            "sdk": self.sdk,
            "endpoint": self.endpoint,
            "apiType": "chat",
            "apiVersion": "v1",
            "deployment": self.deployment,
            "key": self.key,
            "maxCompletionToken": 400,
            "minTemperature": 0,
            "maxTemperature": 1,
            "cost": {"tokens": 1_000_000, "currency": "USD", "input": self.input_price, "output": self.output_price},
        }


def choices(environ: Mapping[str, str], model: str | None = None) -> list[Choice]:
    """What to try, best first; the next one is for a service that does not know the first one's sdk."""
    if base_url := environ.get("OPENAI_BASE_URL"):
        return [_openai(base_url, model, f"the OpenAI-compatible endpoint {base_url}")]
    if environ.get("OPENAI_API_KEY"):
        return [_openai(OPENAI_URL, model, "OpenAI, because OPENAI_API_KEY is set")]
    if environ.get("ANTHROPIC_API_KEY"):
        url = environ.get("ANTHROPIC_BASE_URL") or ANTHROPIC_URL
        return [_anthropic("Anthropic", url, model), _anthropic("OpenAI", f"{url}/v1", model)]
    return [_stand_in()]


def _openai(url: str, model: str | None, why: str) -> Choice:
    return Choice(
        sdk="OpenAI",
        endpoint=url,
        deployment=model or "gpt-4o-mini",
        key="OPENAI_API_KEY",
        input_price=0.15,
        output_price=0.60,
        why=why,
    )


def _anthropic(sdk: str, url: str, model: str | None) -> Choice:
    return Choice(
        sdk=sdk,
        endpoint=url,
        deployment=model or "claude-haiku-4-5",
        key="ANTHROPIC_API_KEY",
        input_price=1.0,
        output_price=5.0,
        why="Anthropic, because ANTHROPIC_API_KEY is set",
    )


def _stand_in() -> Choice:
    return Choice(
        sdk="test",
        endpoint="http://127.0.0.1",
        deployment="test",
        key="NONE",
        input_price=150.0,
        output_price=600.0,
        why="the built-in stand-in, which answers at once and for free; its prices are made up.\n"
        "Set OPENAI_API_KEY, ANTHROPIC_API_KEY or OPENAI_BASE_URL for a real one",
    )
