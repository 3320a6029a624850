"""What can go wrong with a call, and how it is spelled in prompts, model names and scripts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "none": "a plain answer",
        "delay": "the answer after `seconds`",
        "rate_limit": "429; Retry-After by `seconds`, `ms` (retry-after-ms), `date` (HTTP date so many seconds away)",
        "quota": "429 that says money or quota is used up",
        "status": "HTTP `code` (default 500); `seconds` adds Retry-After; `html=1` answers no JSON",
        "key": "401 that echoes the key it was sent, as careless vendors do",
        "reset": "the connection is reset after the request was read",
        "hang": "the request is read and never answered",
        "drip": "the answer comes one byte every `seconds`",
        "cut": "the connection closes in the middle of the body",
        "broken_off": "a stream tells of an error in its middle; without streaming a plain answer",
        "lingers": "a stream is whole, and its connection stays open; without streaming a plain answer",
        "truncated": "200 with half of the JSON body",
        "deep": "200 with a member whose lists are nested `levels` deep",
        "not_json": "200 with an HTML page",
        "belated": "200 whose body is an error of `code`, as gateways have it",
        "no_choices": "200 without a choice",
        "empty": "200 with an empty text",
        "length": "the text was cut at the token limit",
        "content_filter": "the vendor's filter stopped the answer",
        "refusal": "the model refuses",
        "tools": "after a text, every function that was offered is called with TOOL_ARGUMENTS",
        "broken": "almost-JSON that can be repaired",
        "prose": "JSON in a code block between sentences",
        "sentence": "a sentence instead of JSON",
        "list": "a JSON list",
        "scalar": "a JSON number",
        "text": "the text given as `content`",
        "usage": "a plain answer that used `input`, `output`, `cached`, `reasoning` tokens",
    }
)

TOOL_ARGUMENTS = '{"city":"Bern","days":[1,2]}'

_MARKER = re.compile(r"\[\[([a-z_]+)((?:\s+[a-z_]+=[^\s\]]+)*)\s*\]\]")


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to go wrong. Raises ValueError for an unknown kind."""

    kind: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault {self.kind!r}; known: {', '.join(KINDS)}")

    @property
    def headers(self) -> dict[str, str]:
        """What is sent along, whatever the answer: the options named `header:...`, which only scripts can have."""
        named = ((name.partition(":"), value) for name, value in self.options.items())
        return {name: value for (kind, _, name), value in named if kind == "header"}

    def number(self, name: str, default: float) -> float:
        return float(self.options.get(name, default))

    def count(self, name: str, default: int) -> int:
        return int(self.number(name, default))


NO_FAULT = Fault("none")


def fault(kind: str, **options: object) -> Fault:
    return Fault(kind, {name: str(value) for name, value in options.items()})


def fault_of_prompt(text: str) -> Fault | None:
    """The first `[[kind name=value ...]]` in a text, if its kind is known."""
    for match in _MARKER.finditer(text):
        if match[1] in KINDS:
            return Fault(match[1], _options(match[2].split()))
    return None


def fault_of_model(name: str) -> Fault | None:
    """What follows the `!` in a model's name: `fake!rate_limit,seconds=2`."""
    _, mark, spec = name.partition("!")
    kind, *options = spec.split(",")
    return Fault(kind, _options(options)) if mark and kind in KINDS else None


def _options(pairs: list[str]) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in pairs)
