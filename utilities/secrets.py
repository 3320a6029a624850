"""Secrets from the environment and the operating system's keyring, and their removal from what is logged."""

import json
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import structlog

log = structlog.get_logger(__name__)

KEYRING_TIMEOUT_SECONDS = 3.0
CACHE_SECONDS = 30.0
REDACTED = "[redacted]"
SHORTEST_KNOWN_SECRET = 6
"""A shorter one would take innocent parts of words with it."""

KeyringRead = Callable[[str, str], str | None]
"""Answers the secret kept for (service, name), None where there is none; raises KeyringUnavailable."""


class KeyringUnavailable(Exception):
    """The keyring is not installed, has no working back-end, or does not answer in time."""


def read_keyring(service: str, name: str, *, seconds: float = KEYRING_TIMEOUT_SECONDS) -> str | None:
    """The secret the operating system's keyring keeps for (service, name), within `seconds`.

    A locked keyring asks its user and may wait for ever, so the question is put from a thread that can be left behind.
    """
    answers: queue.SimpleQueue[str | Exception | None] = queue.SimpleQueue()
    threading.Thread(target=_ask, args=(service, name, answers), daemon=True, name="keyring").start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty as error:
        raise KeyringUnavailable(f"no answer within {seconds:g} seconds") from error
    if isinstance(answer, Exception):
        raise KeyringUnavailable(type(answer).__name__) from answer
    return answer or None


def _ask(service: str, name: str, answers: "queue.SimpleQueue[str | Exception | None]") -> None:
    try:
        import keyring  # noqa: PLC0415 - slow to import and seldom needed

        answers.put(keyring.get_password(service, name))
    except Exception as error:  # noqa: BLE001 - back-ends are plug-ins and raise whatever they like
        answers.put(error)


def variable_name(name: str) -> str:
    """The environment variable of a key's name: upper-cased, every other character an underscore."""
    return re.sub(r"[^A-Z0-9_]", "_", name.upper())


@dataclass(frozen=True, slots=True)
class _Answer:
    secret: str | None = None
    stale_at: float = float("-inf")


class ProviderSecrets:
    """Provider keys, looked up at call time; implements engine.llm.SecretSource.

    In order: the environment variable of the model's key name; `{MODEL_NAME}_KEY`; the keyring under the model's
    service, by key name and then by model name (only for models that name a service). `reserved` are environment
    variables and keyring names that are never given to a provider: the service's own secrets. Keyring answers are kept
    for 30 seconds, so a call waits for the keyring at most once in that time; when the keyring fails, its last answer
    stands. Safe to use from several threads.
    """

    def __init__(
        self,
        environ: Mapping[str, str] = os.environ,
        *,
        reserved: Collection[str] = (),
        keyring: KeyringRead = read_keyring,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._environ = environ
        self._reserved = frozenset(reserved)
        self._keyring = keyring
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, str], _Answer] = {}

    def provider_key(self, key_name: str | None, model_name: str, service: str | None) -> str | None:
        """The secret, or None where there is none. Never raises; a keyring that fails is logged without the secret."""
        variables = [variable_name(key_name)] if key_name else []
        for variable in (*variables, variable_name(f"{model_name}_KEY")):
            if variable not in self._reserved and (secret := self._environ.get(variable)):
                return secret
        return self._from_keyring(service, key_name, model_name) if service else None

    def _from_keyring(self, service: str, *names: str | None) -> str | None:
        for name in names:
            if name and variable_name(name) not in self._reserved and (secret := self._cached(service, name)):
                return secret
        return None

    def _cached(self, service: str, name: str) -> str | None:
        with self._lock:
            answer = self._answers.get((service, name), _Answer())
            if answer.stale_at <= self._monotonic():
                answer = self._refreshed(service, name, answer)
                self._answers[service, name] = answer
            return answer.secret

    def _refreshed(self, service: str, name: str, last: _Answer) -> _Answer:
        secret = last.secret
        try:
            secret = self._keyring(service, name)
        except KeyringUnavailable as error:
            log.warning("keyring_unavailable", service=service, reason=str(error))
        return _Answer(secret, self._monotonic() + CACHE_SECONDS)


_SECRET_FIELDS = re.compile(r"api_?key|authorization|cookie|password|pepper|secret|credential|^key$", re.IGNORECASE)
_CONTENT_FIELDS = frozenset(
    {"prompt", "prompts", "system", "user", "content", "messages", "text", "raw", "body", "completion"}
    | {"request_data", "requestData", "response_data", "responseData"}
)
_SECRET_TEXTS = (
    ("://", re.compile(r"""://[^/\s@"']+@"""), f"://{REDACTED}@"),
    ("earer ", re.compile(r"\b([Bb]earer) +[\w.~+/=-]{8,}"), rf"\1 {REDACTED}"),
    ("asic ", re.compile(r"\b([Bb]asic) +[\w.~+/=-]{8,}"), rf"\1 {REDACTED}"),
    ("sk-", re.compile(r"\bsk-[\w-]{8,}"), REDACTED),
)
"""A text that must be there, so that most lines cost no more than looking for it; what to find; what to put."""


@lru_cache(maxsize=1024)
def _is_hidden(field: str) -> bool:
    return field in _CONTENT_FIELDS or _SECRET_FIELDS.search(field) is not None


class Redactor:
    """Takes out what looks like a secret or like content before a line is written: the last line of defence.

    As a structlog processor it empties fields named like secrets or like prompt and answer texts, nested ones too.
    `text` then cleans the rendered line, tracebacks included, of the given `secrets`, of user names and passwords in
    URLs, of bearer and basic credentials and of `sk-` keys.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret) >= SHORTEST_KNOWN_SECRET}
        forms = known | {json.dumps(secret, ensure_ascii=False)[1:-1] for secret in known}
        self._known = sorted(forms, key=len, reverse=True)

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for name, value in event.items():
            if value is not None and _is_hidden(name):
                event[name] = REDACTED
            elif isinstance(value, dict | list | tuple):
                event[name] = _cleaned(value)
        return event

    def text(self, line: str) -> str:
        """`line` without anything that is known to be, or looks like, a secret."""
        for secret in self._known:
            line = line.replace(secret, REDACTED)
        for marker, pattern, replacement in _SECRET_TEXTS:
            if marker in line:
                line = pattern.sub(replacement, line)
        return line


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: REDACTED if _is_hidden(str(name)) else _cleaned(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    return value
