"""A client's chat as Gemini is asked. Source: ai.google.dev/api/generate-content.

Gemini 3 wants the signature of its thoughts back with each call of a tool; it travels as Google's own OpenAI endpoint
has it, in the call's `extra_content`.
"""

import mimetypes
from collections.abc import Iterator
from typing import Any

import orjson

from engine.llm import CompletionRequest, JsonObject, UnsupportedParameter
from llm_workers.chats import SYSTEM_ROLES, messages_of, number_in
from llm_workers.providers.chat_parts import (
    calls_in,
    choice_of_tool,
    data_in,
    effort_in,
    functions_in,
    parts_of,
    refuse_others,
    schema_in,
    stops_in,
    text_of,
    whole_number,
)

_TAKEN = frozenset(
    {
        *("tools", "tool_choice", "parallel_tool_calls", "stop", "response_format", "reasoning_effort", "n", "seed"),
        *("top_p", "top_k", "frequency_penalty", "presence_penalty", "logprobs", "top_logprobs"),
    }
)
_LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH"}
_BUDGETS = {"none": "0", "minimal": "1024", "low": "1024", "medium": "8192", "high": "24576"}
"""Tokens, as Google's own OpenAI endpoint has them for models before Gemini 3."""
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "function": "ANY"}


def chat_body(chat: JsonObject, request: CompletionRequest) -> JsonObject:
    """Raises UnsupportedParameter for what has no counterpart."""
    refuse_others(chat, _TAKEN, "Gemini")
    functions = [_declared(function) for function in functions_in(chat)]
    if functions and chat.get("parallel_tool_calls") is False:
        raise UnsupportedParameter("parallel_tool_calls", "Gemini cannot be kept from calling several tools at once")
    body: JsonObject = {
        "contents": _contents(chat),
        "generationConfig": {name: value for name, value in _settings(chat, request).items() if value is not None},
        "systemInstruction": _system(chat),
        "tools": [{"functionDeclarations": functions}] if functions else None,
        "toolConfig": _tool_config(chat) if functions else None,
    }
    return {name: value for name, value in body.items() if value is not None}


def _settings(chat: JsonObject, request: CompletionRequest) -> JsonObject:
    """Penalties of 0 and one answer are not sent: some models refuse to hear of them."""
    kind, schema = schema_in(chat)
    wants_logprobs, count = bool(chat.get("logprobs")), whole_number(chat, "n", 1)
    return {
        "temperature": request.temperature,
        "maxOutputTokens": request.max_tokens,
        "topP": number_in(chat, "top_p"),
        "topK": number_in(chat, "top_k"),
        "candidateCount": None if count == 1 else count,
        "stopSequences": stops_in(chat) or None,
        "seed": whole_number(chat, "seed"),
        "presencePenalty": number_in(chat, "presence_penalty") or None,
        "frequencyPenalty": number_in(chat, "frequency_penalty") or None,
        "responseLogprobs": True if wants_logprobs else None,
        "logprobs": whole_number(chat, "top_logprobs") if wants_logprobs else None,
        "responseMimeType": None if kind == "text" else "application/json",
        "responseJsonSchema": schema,
        "thinkingConfig": _thinking(chat, request.endpoint.deployment),
    }


def _thinking(chat: JsonObject, deployment: str) -> JsonObject | None:
    if "gemini-2" in deployment:
        budget = effort_in(chat, _BUDGETS)
        return None if budget is None else {"thinkingBudget": int(budget)}
    level = effort_in(chat, _LEVELS)
    return None if level is None else {"thinkingLevel": level}


def _system(chat: JsonObject) -> JsonObject | None:
    placed = enumerate(messages_of(chat))
    texts = [text_of(each, f"messages[{number}]") for number, each in placed if each["role"] in SYSTEM_ROLES]
    text = "\n\n".join(text for text in texts if text)
    return {"parts": [{"text": text}], "role": "user"} if text else None


def _contents(chat: JsonObject) -> list[JsonObject]:
    """Without the system's; messages of one side that follow each other are one, as results of tools have to be."""
    contents: list[JsonObject] = []
    names: dict[str, str] = {}
    for number, message in enumerate(messages_of(chat)):
        if message["role"] in SYSTEM_ROLES:
            continue
        role = "model" if message["role"] == "assistant" else "user"
        parts = list(_parts(message, f"messages[{number}]", names))
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        elif parts:
            contents.append({"parts": parts, "role": role})
    if not contents:
        raise UnsupportedParameter("messages", "Gemini wants a message of the user's")
    return contents


def _parts(message: JsonObject, place: str, names: dict[str, str]) -> Iterator[JsonObject]:
    """`names` are the functions called so far, by their call's id."""
    role = message["role"]
    if role == "tool":
        yield _result(message, place, names)
        return
    if role not in ("user", "assistant"):
        raise UnsupportedParameter(f"{place}.role", "none of system, developer, user, assistant, tool")
    for kind, value in parts_of(message, place):
        if kind != "text" or value:
            yield {"text": value} if kind == "text" else _media(value, place)
    if role == "assistant":
        for call, call_id, name, arguments in calls_in(message, place):
            names[call_id] = name
            yield {"functionCall": {"id": call_id, "name": name, "args": arguments}, **_signature(call)}


def _signature(call: JsonObject) -> JsonObject:
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return {"thoughtSignature": signature} if isinstance(signature, str) else {}


def _result(message: JsonObject, place: str, names: dict[str, str]) -> JsonObject:
    call_id = str(message.get("tool_call_id") or "")
    if call_id not in names:
        raise UnsupportedParameter(f"{place}.tool_call_id", "no call before it has this id")
    return {"functionResponse": {"id": call_id, "name": names[call_id], "response": _object(text_of(message, place))}}


def _object(text: str) -> JsonObject:
    """What a function answered, which Gemini wants as an object."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {"output": text}
    return value if isinstance(value, dict) else {"output": value}


def _media(url: str, place: str) -> JsonObject:
    data = data_in(url)
    if data is not None:
        return {"inlineData": {"mimeType": data[0], "data": data[1]}}
    if not url.startswith("https://"):
        raise UnsupportedParameter(f"{place}.content", "neither a data URL in base64 nor at an https address")
    guessed, _ = mimetypes.guess_type(url.partition("?")[0])
    return {"fileData": {"fileUri": url, "mimeType": guessed or "image/jpeg"}}


def _declared(function: JsonObject) -> JsonObject:
    told: dict[str, Any] = {
        "name": function["name"],
        "description": function.get("description"),
        "parametersJsonSchema": function.get("parameters"),
    }
    return {name: value for name, value in told.items() if value}


def _tool_config(chat: JsonObject) -> JsonObject | None:
    kind, name = choice_of_tool(chat)
    if kind is None:
        return None
    allowed = {} if name is None else {"allowedFunctionNames": [name]}
    return {"functionCallingConfig": {"mode": _MODES[kind], **allowed}}
