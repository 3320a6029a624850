"""Vendors and servers that speak OpenAI's chat completions: one row each, to be named as a model's sdk.

Sources: the vendors' API references. A row says where a vendor differs; what it takes beyond OpenAI's parameters is not
used. A refusal at run time is understood too (see openai.py), so a row that has become wrong costs one call.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from yarl import URL

if TYPE_CHECKING:
    from llm_workers.providers.openai import OpenAiProvider
    from llm_workers.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Compatible:
    """`base_url` and `key_variable` stand in where a model says `default`. Called, it makes the provider.

    `newer_limit`: the token limit is called max_completion_tokens. `json_mode`: it knows {"type": "json_object"}.
    `json_schema`: it takes a schema. `stream_usage`: it takes the option without which OpenAI's streams tell no usage.
    `needs_key` False: a key is sent where there is one.
    """

    sdk: str
    base_url: str = ""
    key_variable: str | None = None
    needs_key: bool = True
    newer_limit: bool = False
    json_mode: bool = True
    json_schema: bool = True
    stream_usage: bool = True

    def __call__(self, transport: "Transport", /) -> "OpenAiProvider":
        from llm_workers.providers.openai import OpenAiProvider  # noqa: PLC0415 - it reads this table

        return OpenAiProvider(transport, self)


def _hosted(sdk: str, base_url: str, key_variable: str, **differences: bool) -> Compatible:
    return Compatible(sdk=sdk, base_url=base_url, key_variable=key_variable, **differences)


def _local(sdk: str, port: int, **differences: bool) -> Compatible:
    """A server people run themselves, by its usual port; with a key only where they gave it one."""
    url, variable = f"http://localhost:{port}/v1", f"{sdk.upper()}_API_KEY"
    return Compatible(sdk=sdk, base_url=url, key_variable=variable, needs_key=False, **differences)


OPENAI = _hosted("OpenAI", "https://api.openai.com/v1", "OPENAI_API_KEY", newer_limit=True)
UNKNOWN = Compatible(sdk="OpenAI", key_variable="OPENAI_API_KEY", json_mode=False)
"""An endpoint that no row knows: most take a schema or ignore it, many refuse JSON mode."""

_ROWS = (
    _hosted("Cerebras", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", newer_limit=True),
    _hosted("DeepSeek", "https://api.deepseek.com", "DEEPSEEK_API_KEY", json_schema=False),
    _hosted("Fireworks", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    _hosted("Groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", newer_limit=True),
    _hosted("Mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY", stream_usage=False),
    _hosted("OpenRouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    _hosted("Perplexity", "https://api.perplexity.ai", "PERPLEXITY_API_KEY", json_mode=False, stream_usage=False),
    _hosted("Together", "https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    _hosted("xAI", "https://api.x.ai/v1", "XAI_API_KEY", newer_limit=True),
    _local("LlamaCpp", 8080),
    _local("LMStudio", 1234, json_mode=False),
    _local("Ollama", 11434),
    _local("SGLang", 30000),
    _local("vLLM", 8000),
)
COMPATIBLE: Mapping[str, Compatible] = MappingProxyType({row.sdk: row for row in _ROWS})
_BY_HOST = {URL(row.base_url).host: row for row in (OPENAI, *_ROWS) if row.needs_key}


@lru_cache(maxsize=256)
def spoken_at(base_url: str) -> Compatible:
    """The row for an endpoint of sdk OpenAI, by its host; OpenAI's own where none is given."""
    return _BY_HOST.get(URL(base_url).host, UNKNOWN) if base_url else OPENAI
