"""Reading a client's chat for vendors of another format: what all translations need. Errors name what the client sent.

Source: openai/openai-openapi openapi.yaml 2.3.0, CreateChatCompletionRequest.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from engine.llm import JsonObject, UnsupportedParameter

_HINTS = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "temperature", "max_tokens", "max_completion_tokens"),
        *("metadata", "store", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "user"),
    }
)
"""Read by all, or of no weight for the answer: where it is stored, cached or counted at OpenAI."""
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "top_p": (1,),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "parallel_tool_calls": (True,),
    "verbosity": ("medium",),
}
"""What says no more than its absence does."""
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,", re.ASCII)


def refuse_others(chat: JsonObject, taken: frozenset[str], sdk: str) -> None:
    """Raises UnsupportedParameter for the first field that asks for something and is not among the `taken` ones."""
    for name, value in chat.items():
        if name in taken or name in _HINTS or value is None or value is False or value in ([], {}):
            continue
        if value not in _NEUTRAL.get(name, ()):
            raise UnsupportedParameter(name, f"{sdk} has nothing of the kind")


def parts_of(message: JsonObject, place: str) -> Iterator[tuple[str, Any]]:
    """The parts of a message's content: (text, str), (image, its URL) or (file, its data URL)."""
    content = message.get("content")
    if isinstance(content, str):
        yield "text", content
    elif isinstance(content, list):
        for number, part in enumerate(content):
            yield _part(part, f"{place}.content[{number}]")
    elif content is not None:
        raise UnsupportedParameter(f"{place}.content", "neither a text nor a list of parts")


def _part(part: Any, place: str) -> tuple[str, Any]:
    kind = str(part.get("type"))[:50] if isinstance(part, dict) else "no object"
    if kind in ("text", "refusal") and isinstance(part.get(kind), str):
        return "text", part[kind]
    for name, inner, called in (("image_url", "url", "image"), ("file", "file_data", "file")):
        given = part.get(name) if kind == name else None
        if isinstance(given, dict) and isinstance(given.get(inner), str):
            return called, given[inner]
    raise UnsupportedParameter(place, f"a part of this kind ({kind}) cannot be passed on to this model's vendor")


def text_of(message: JsonObject, place: str) -> str:
    """The text of a message that may hold nothing else."""
    parts = list(parts_of(message, place))
    if any(kind != "text" for kind, _ in parts):
        raise UnsupportedParameter(f"{place}.content", "only texts can stand here")
    return "\n".join(value for _, value in parts)


def data_in(url: str) -> tuple[str, str] | None:
    """The media type and the base64 of a data URL; None for any other URL."""
    found = _DATA_URL.match(url)
    return None if found is None else (found[1], url[found.end() :])


def stops_in(chat: JsonObject) -> list[str]:
    stop = chat.get("stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(each, str) for each in stops):
        raise UnsupportedParameter("stop", "neither a text nor a list of texts")
    return stops


def functions_in(chat: JsonObject) -> list[JsonObject]:
    """The functions among the tools, each with a name. Raises UnsupportedParameter for tools of other kinds."""
    tools = chat.get("tools") or []
    if not isinstance(tools, list):
        raise UnsupportedParameter("tools", "not a list")
    return [_function(tool, f"tools[{number}]") for number, tool in enumerate(tools)]


def _function(tool: Any, place: str) -> JsonObject:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type", "function") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise UnsupportedParameter(place, "not a function with a name")
    return function


def choice_of_tool(chat: JsonObject) -> tuple[str | None, str | None]:
    """(auto | none | required | function, the function's name); (None, None) where nothing is asked."""
    choice = chat.get("tool_choice")
    if choice in (None, "auto", "none", "required"):
        return choice, None
    function = choice.get("function") if isinstance(choice, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise UnsupportedParameter("tool_choice", "not auto, none, required, or a function by its name")
    return "function", function["name"]


def calls_in(message: JsonObject, place: str) -> Iterator[tuple[JsonObject, str, str, JsonObject]]:
    """The calls of tools in an assistant's message: each as it is, its id, the function's name and its arguments."""
    calls = message.get("tool_calls") or []
    for number, call in enumerate(calls if isinstance(calls, list) else [calls]):
        here = f"{place}.tool_calls[{number}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise UnsupportedParameter(here, "not a function with a name")
        yield call, str(call.get("id") or ""), function["name"], _arguments(function, here)


def _arguments(function: JsonObject, place: str) -> JsonObject:
    try:
        arguments = orjson.loads(function.get("arguments") or "{}")
    except (orjson.JSONDecodeError, TypeError):
        arguments = None
    if not isinstance(arguments, dict):
        raise UnsupportedParameter(f"{place}.function.arguments", "not a JSON object")
    return arguments


def schema_in(chat: JsonObject) -> tuple[str, JsonObject | None]:
    """(text | json_object | json_schema, the schema)."""
    wanted = chat.get("response_format") or {"type": "text"}
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind in ("text", "json_object"):
        return kind, None
    named = wanted.get("json_schema") if kind == "json_schema" else None
    if not isinstance(named, dict) or not isinstance(named.get("schema"), dict):
        raise UnsupportedParameter("response_format", "not text, json_object, or json_schema with a schema")
    return "json_schema", named["schema"]


def whole_number(chat: JsonObject, name: str, least: int = 0) -> int | None:
    value = chat.get(name)
    if value is not None and (type(value) is not int or value < least):
        raise UnsupportedParameter(name, f"not a whole number from {least}")
    return value


def effort_in(chat: JsonObject, efforts: Mapping[str, str]) -> str | None:
    """The vendor's word for reasoning_effort."""
    wanted = chat.get("reasoning_effort")
    if wanted is None:
        return None
    if not isinstance(wanted, str) or wanted not in efforts:
        raise UnsupportedParameter("reasoning_effort", f"none of {', '.join(efforts)}")
    return efforts[wanted]
