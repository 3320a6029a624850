"""Secrets from the environment and the operating system's keyring, and their removal from what is logged."""

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import structlog

log = structlog.get_logger(__name__)

KEYRING_TIMEOUT_SECONDS = 3.0
CACHE_SECONDS = 30.0
REDACTED = "[redacted]"

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
    {"prompt", "prompts_text", "system", "user", "content", "messages", "text", "raw", "body"}
    | {"request_data", "requestData", "response_data", "responseData", "completion"}
)
_SECRET_TEXTS = (
    (re.compile(r"://[^/\s@]+@"), f"://{REDACTED}@"),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"\bsk-[\w-]{8,}"), REDACTED),
)


class Redactor:
    """A structlog processor: what looks like a secret or like content is replaced before a line is written.

    Fields named like secrets or like prompt and answer texts lose their value whatever it is; every text (tracebacks
    too) loses the given `secrets`, user names and passwords in URLs, bearer tokens and `sk-` keys. The last line of
    defence, not a licence to log secrets.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= 6}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for name, value in event.items():
            event[name] = self._field(name, value)
        return event

    def _field(self, name: str, value: Any) -> Any:
        if value is not None and (name in _CONTENT_FIELDS or _SECRET_FIELDS.search(name)):
            return REDACTED
        return self._value(value)

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {name: self._field(str(name), item) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(item) for item in value]
        return value

    def text(self, text: str) -> str:
        """`text` without anything that is known to be, or looks like, a secret."""
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        for pattern, replacement in _SECRET_TEXTS:
            text = pattern.sub(replacement, text)
        return text
