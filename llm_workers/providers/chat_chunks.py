"""Streamed chat completions: a vendor's events as OpenAI's chunks, and the whole answer that the chunks add up to."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from engine.llm import JsonObject
from llm_workers.messages import size_of_event, text_in_event
from llm_workers.providers.chat_answers import content_text

Translation = Callable[[JsonObject], JsonObject | None]
"""A vendor's event to one of OpenAI's chunks; None where it has nothing for the client.

A chunk may have id, model and usage too: the sum takes them.
"""

_OF_THE_WHOLE = ("id", "created", "model")
_OF_THE_CHUNK = ("choices", "usage", "object", "obfuscation")


class ChatFold:
    """Adds the events of one streamed chat up: implements llm_workers.providers.events.Fold."""

    def __init__(self, translation: Translation, now: datetime) -> None:
        self._translation = translation
        self._choices: dict[int, _Choice] = {}
        self._whole: JsonObject = {"id": "", "object": "chat.completion", "created": int(now.timestamp()), "model": ""}
        self._usage: JsonObject = {}

    @property
    def ended(self) -> bool:
        return bool(self._choices) and all(each.reason is not None for each in self._choices.values())

    def feed(self, event: JsonObject) -> JsonObject | None:
        """The chunk as it is handed on, with roles where they belong; None where there is nothing in it."""
        chunk = self._translation(event)
        if chunk is None:
            return None
        self._usage = chunk.get("usage") or self._usage
        about = {name: value for name, value in chunk.items() if name not in _OF_THE_CHUNK and value}
        self._whole = {**self._whole, **about}
        told = [told for each in chunk.get("choices") or () if (told := self._told(each)) is not None]
        if not told:
            return None
        return {**{name: value for name, value in about.items() if name not in _OF_THE_WHOLE}, "choices": told}

    def document(self, text: str) -> JsonObject:  # noqa: ARG002 - a chat's text is in its choices
        """The whole answer in OpenAI's shape, whoever the vendor."""
        choices = [self._choices[index].whole(index) for index in sorted(self._choices)]
        return {**self._whole, "choices": choices, "usage": self._usage}

    def _told(self, choice: JsonObject) -> JsonObject | None:
        index = choice.get("index") or 0
        known = self._choices.setdefault(index, _Choice())
        delta, reason = known.take(choice), choice.get("finish_reason")
        if not delta and reason is None:
            return None
        if not known.begun:
            delta = {"role": "assistant", **delta}
            known.begun = True
        logprobs = {"logprobs": choice["logprobs"]} if choice.get("logprobs") else {}
        return {"index": index, "delta": delta, **logprobs, "finish_reason": reason}


class _Choice:
    """One of the answer's choices, as far as it has come."""

    def __init__(self) -> None:
        self.begun = False
        self.reason: str | None = None
        self._texts: dict[str, list[str]] = {}
        self._others: JsonObject = {}
        self._calls: dict[int, JsonObject] = {}
        self._arguments: dict[int, list[str]] = {}
        self._logprobs: JsonObject = {}

    def take(self, choice: JsonObject) -> JsonObject:
        """What is new in its delta, without the role and what is empty."""
        self.reason = choice.get("finish_reason") or self.reason
        _extend(self._logprobs, choice.get("logprobs") or {})
        given = choice.get("delta") or {}
        given = {**given, "content": content_text(given.get("content"))}
        delta = {name: value for name, value in given.items() if name != "role" and value not in (None, "", [])}
        for name, value in delta.items():
            if name == "tool_calls":
                self._call(value)
            elif isinstance(value, str):
                self._texts.setdefault(name, []).append(value)
            else:
                self._others[name] = _joined(self._others.get(name), value)
        return delta

    def whole(self, index: int) -> JsonObject:
        texts = {name: "".join(pieces) for name, pieces in self._texts.items()}
        message: JsonObject = {"role": "assistant", "content": None, "refusal": None, **self._others, **texts}
        if self._calls:
            message["tool_calls"] = [self._called(number) for number in sorted(self._calls)]
        elif message["content"] is None and message["refusal"] is None:
            message["content"] = ""
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs or None,
            "finish_reason": self.reason,
        }

    def _call(self, parts: list[JsonObject]) -> None:
        for place, part in enumerate(parts):
            number, function = part.get("index", place), part.get("function") or {}
            call = self._calls.setdefault(number, {"type": "function", "name": ""})
            call |= {name: value for name, value in part.items() if name not in ("index", "function") and value}
            call["name"] = function.get("name") or call["name"]
            self._arguments.setdefault(number, []).append(function.get("arguments") or "")

    def _called(self, number: int) -> JsonObject:
        about = {name: value for name, value in self._calls[number].items() if name != "name"}
        return {
            **about,
            "function": {"name": self._calls[number]["name"], "arguments": "".join(self._arguments[number])},
        }


def _joined(old: Any, new: Any) -> Any:
    """Texts and lists go on, an object's fields too; anything else takes the place of what was."""
    if isinstance(old, str) and isinstance(new, str):
        return old + new
    if isinstance(old, list) and isinstance(new, list):
        return [*old, *new]
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{name: _joined(old.get(name), value) for name, value in new.items()}}
    return new


def _extend(known: JsonObject, told: JsonObject) -> None:
    for name, value in told.items():
        known[name] = _joined(known.get(name), value)


def text_in(piece: str | JsonObject) -> str:
    """What a piece of a stream adds to its text, which for a chat is the first choice's.

    What has no choices is an event of Anthropic's.
    """
    if isinstance(piece, str):
        return piece
    if "choices" not in piece:
        return text_in_event(piece)
    texts = (each["delta"].get("content") for each in piece["choices"] if each["index"] == 0)
    return "".join(text for text in texts if text)


def size_of(piece: str | JsonObject) -> int:
    """How many characters the model said in a piece, of whichever choice, arguments of tools included."""
    if isinstance(piece, str):
        return len(piece)
    if "choices" not in piece:
        return size_of_event(piece)
    return sum(_size(each["delta"]) for each in piece["choices"])


def _size(delta: JsonObject) -> int:
    calls = sum(len((call.get("function") or {}).get("arguments") or "") for call in delta.get("tool_calls") or ())
    return calls + sum(len(value) for name, value in delta.items() if name != "role" and isinstance(value, str))


def text_chunk(text: str) -> JsonObject:
    """A piece of text as a chunk."""
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}


def last_chunk(reason: str) -> JsonObject:
    """The end of an answer as a chunk."""
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
