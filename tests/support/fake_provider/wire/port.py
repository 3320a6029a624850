"""What a wire format does for the fake provider, and what it is told."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from aiohttp import web

from tests.support.fake_provider.faults import Fault


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as every wire format is read into. `user` is all that the user said; `turns` are the messages after
    the first, as (assistant | user, text)."""

    model: str
    system: str
    user: str
    key: str
    attempt_id: str
    body: dict[str, Any]
    stream: bool = False
    turns: tuple[tuple[str, str], ...] = ()
    betas: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer in no vendor's words. `stop` is stop, length, content_filter, refusal or tools."""

    text: str
    stop: str = "stop"
    choices: bool = True
    input_tokens: int = 11
    output_tokens: int = 7
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a vendor answers 400: a parameter that the model does not take."""

    parameter: str
    message: str


class Wire(Protocol):
    """`reason` is rate_limit, quota, key, request or server; `error` gives the vendor's JSON for it."""

    name: ClassVar[str]
    paths: ClassVar[tuple[str, ...]]
    quota_status: ClassVar[int]

    def read(self, request: web.Request, body: dict[str, Any]) -> Asked: ...

    def objection(self, asked: Asked) -> Objection | None: ...

    def answer(self, asked: Asked, reply: Reply) -> dict[str, Any]: ...

    def frames(self, asked: Asked, reply: Reply) -> Iterator[bytes]: ...

    def error(self, reason: str, message: str, parameter: str | None = None) -> dict[str, Any]: ...


_TEXTS: Mapping[str, str] = {
    "broken": '{"answer": "broken", "items": [1, 2,], \'n\': 3',
    "prose": 'Here it is:\n```json\n{"answer": "prose"}\n```\nAnything else?',
    "sentence": "I would rather talk about the weather today.",
    "list": '["a", "b"]',
    "scalar": "42",
    "empty": "",
    "length": '{"answer": "this goes on and o',
    "content_filter": '{"answer": "filt',
    "refusal": "I cannot help with that.",
}


def pieces_of(text: str) -> list[str]:
    """A text as it is streamed, and as its tokens are counted by logprobs."""
    return [text[start : start + 8] for start in range(0, len(text), 8)]


def reply_for(fault: Fault, text: str) -> Reply:
    """The answer to a call that is answered at all; `text` is what a plain answer says."""
    if fault.kind == "text":
        return Reply(fault.options["content"])
    if fault.kind == "usage":
        return Reply(
            text,
            input_tokens=fault.count("input", 11),
            output_tokens=fault.count("output", 7),
            cached_tokens=fault.count("cached", 0),
            reasoning_tokens=fault.count("reasoning", 0),
        )
    stop = fault.kind if fault.kind in ("length", "content_filter", "refusal", "tools") else "stop"
    return Reply(_TEXTS.get(fault.kind, text), stop=stop, choices=fault.kind != "no_choices")
