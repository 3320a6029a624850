"""What is sent for a job: pure functions from a job, its prompts and its model to a request."""

import json
from collections.abc import Iterable
from typing import Any

import orjson

from engine.errors import InvalidField
from engine.llm import CompletionRequest, Endpoint, JsonObject, ProviderRefusedKey, ResponseFormat, Timeouts, Turn
from engine.records.values import Model, Prompt
from llm_workers.chats import CHAT, EMBEDDINGS, conversation, format_in, inputs_of, number_in, token_limit_in
from llm_workers.messages import MESSAGES, limit_in
from utilities.secrets import variable_name

DEFAULT = "default"
"""As a model's endpoint or key: the vendor's own address, the usual name of the vendor's key."""

_LONGEST_QUOTE = 64 * 1024
_LONGEST_SCHEMA = 16 * 1024


def system_text(prompts: Iterable[Prompt], instructions: str | None = None) -> str:
    """The prompts' texts and last the instructions, joined by a blank line."""
    texts = [prompt.text for prompt in prompts]
    return "\n\n".join(texts if instructions is None else [*texts, instructions])


def user_text(data: Any) -> str:
    """`data` as JSON indented by two, characters as they are."""
    try:
        return orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # numbers beyond 64 bits
        return json.dumps(data, indent=2, ensure_ascii=False)


def clamped_temperature(wanted: float, model: Model) -> float:
    """`wanted`, within the model's range."""
    return min(max(wanted, model.min_temperature), model.max_temperature)


def token_limit(model: Model) -> int | None:
    """maxCompletionToken, else maxToken, else the vendor's own."""
    return model.max_completion_token if model.max_completion_token is not None else model.max_token


def completion_request(
    model: Model,
    key: str | None,
    *,
    system: str,
    user: str,
    temperature: float,
    response_format: ResponseFormat,
    attempt_id: str,
    timeouts: Timeouts,
    turns: tuple[Turn, ...] = (),
    max_tokens: int | None = None,
    most_output: int | None = None,
) -> CompletionRequest:
    """Without `max_tokens` the model's own limit holds, or `most_output` where that is less."""
    limits = [limit for limit in (token_limit(model), most_output) if limit is not None]
    return CompletionRequest(
        endpoint=endpoint_of(model, key),
        system=system,
        user=user,
        temperature=clamped_temperature(temperature, model),
        max_tokens=min(limits, default=None) if max_tokens is None else max_tokens,
        response_format=response_format,
        turns=turns,
        attempt_id=attempt_id,
        timeouts=timeouts,
    )


def endpoint_of(model: Model, key: str | None) -> Endpoint:
    """Where the model is reached."""
    return Endpoint(
        sdk=model.sdk,
        base_url="" if is_default(model.endpoint) else model.endpoint,
        deployment=model.deployment,
        api_type=model.api_type,
        api_version=model.api_version,
        key=key,
    )


def request_to(
    path: str, model: Model, key: str | None, *, body: JsonObject, attempt_id: str, timeouts: Timeouts
) -> CompletionRequest:
    """A request to a vendor's endpoint of that path, with `body` as the client sent it, held to the model's limits.

    Raises InvalidField for a path that is not served, and UnsupportedParameter for a body that cannot be read.
    """
    if path == CHAT:
        return _chat_request(model, key, body, attempt_id, timeouts)
    if path == MESSAGES:
        return _messages_request(model, key, body, attempt_id, timeouts)
    if path != EMBEDDINGS:
        raise InvalidField("endpoint", f"{path} is not served")
    inputs_of(body)
    return CompletionRequest(
        endpoint=endpoint_of(model, key),
        system="",
        user="",
        max_tokens=0,
        embeds=body,
        attempt_id=attempt_id,
        timeouts=timeouts,
    )


def _chat_request(
    model: Model, key: str | None, chat: JsonObject, attempt_id: str, timeouts: Timeouts
) -> CompletionRequest:
    system, user, turns = conversation(chat)
    warmth = number_in(chat, "temperature")
    limits = [limit for limit in (token_limit_in(chat), token_limit(model)) if limit is not None]
    return CompletionRequest(
        endpoint=endpoint_of(model, key),
        system=system,
        user=user,
        turns=turns,
        temperature=None if warmth is None else clamped_temperature(warmth, model),
        max_tokens=min(limits, default=None),
        response_format=format_in(chat),
        chat=chat,
        attempt_id=attempt_id,
        timeouts=timeouts,
    )


def _messages_request(
    model: Model, key: str | None, messages: JsonObject, attempt_id: str, timeouts: Timeouts
) -> CompletionRequest:
    warmth, limit = number_in(messages, "temperature"), token_limit(model)
    return CompletionRequest(
        endpoint=endpoint_of(model, key),
        system="",
        user="",
        temperature=None if warmth is None else clamped_temperature(warmth, model),
        max_tokens=limit_in(messages) if limit is None else min(limit_in(messages), limit),
        response_format="text",
        messages=messages,
        attempt_id=attempt_id,
        timeouts=timeouts,
    )


def correction(answer: str, problem: str, wanted: ResponseFormat) -> tuple[Turn, Turn]:
    """What is said after an answer that missed the format: the answer, at most 64 KiB of it, and what is wrong.

    The schema is repeated where it is short: a vendor that takes none has shown it to nobody.
    """
    said = answer[:_LONGEST_QUOTE].encode(errors="ignore")[:_LONGEST_QUOTE].decode(errors="ignore")
    asked = f"That cannot be used: {problem}. Answer again with the corrected JSON only, without any other words."
    schema = user_text(wanted["schema"]) if isinstance(wanted, dict) else ""
    if schema and len(schema) <= _LONGEST_SCHEMA:
        asked = f"{asked}\n\nIt has to match this JSON schema:\n{schema}"
    return Turn("assistant", said if said.strip() else "(nothing)"), Turn("user", asked)


def is_default(field: str) -> bool:
    """Whether a model leaves its endpoint or the name of its key to the provider."""
    return field.strip().lower() == DEFAULT


def no_key(model: Model, key_name: str) -> ProviderRefusedKey:
    """The error for a model whose key is nowhere to be found; says where it is looked for."""
    variables = dict.fromkeys(variable_name(name) for name in (key_name, f"{model.name}_KEY") if name)
    places = " or ".join(variables)
    keyring = f", or store it in the keyring under the service {model.service}" if model.service else ""
    return ProviderRefusedKey(
        f"no key for model {model.name}: set the environment variable {places}{keyring}; jobs that failed for it can "
        "then be redriven",
        sent=False,
    )
