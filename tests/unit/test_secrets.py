"""Provider keys: where they are looked for, and that they never reach a log."""

import threading
from collections.abc import Iterator

import keyring
import pytest
import structlog
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring

from engine.llm import SecretSource
from utilities.secrets import (
    CACHE_SECONDS,
    REDACTED,
    KeyringUnavailable,
    ProviderSecrets,
    Redactor,
    read_keyring,
    variable_name,
)


class Shelf:
    """A keyring as a function, and a clock beside it."""

    def __init__(self, kept: dict[tuple[str, str], str] | None = None) -> None:
        self.kept = kept or {}
        self.asked: list[tuple[str, str]] = []
        self.down = False
        self.seconds = 0.0

    def read(self, service: str, name: str) -> str | None:
        self.asked.append((service, name))
        if self.down:
            raise KeyringUnavailable("gone")
        return self.kept.get((service, name))

    def secrets(self, environ: dict[str, str], reserved: tuple[str, ...] = ()) -> ProviderSecrets:
        return ProviderSecrets(environ, reserved=reserved, keyring=self.read, monotonic=lambda: self.seconds)


@pytest.mark.parametrize(
    ("name", "variable"),
    [("gpt-4_key", "GPT_4_KEY"), ("my key.v2", "MY_KEY_V2"), ("OPENAI_API_KEY", "OPENAI_API_KEY"), ("é", "_")],
)
def test_a_key_name_becomes_a_variable(name: str, variable: str) -> None:
    """Upper-cased, every character that is no letter, digit or underscore replaced."""
    assert variable_name(name) == variable


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"MY_KEY": "own", "GPT_4_KEY": "by model"}, "own"),
        ({"GPT_4_KEY": "by model"}, "by model"),
        ({"MY_KEY": "", "GPT_4_KEY": "by model"}, "by model"),
        ({}, "by key name"),
    ],
)
def test_order_of_places(environ: dict[str, str], expected: str) -> None:
    """The key's own variable, then {MODEL_NAME}_KEY, then the keyring; an empty variable counts as absent."""
    shelf = Shelf({("vendor", "my-key"): "by key name", ("vendor", "gpt-4"): "by model name"})
    source: SecretSource = shelf.secrets(environ)
    assert source.provider_key("my-key", "gpt-4", "vendor") == expected
    assert shelf.asked == ([] if environ else [("vendor", "my-key")])


def test_the_keyring_knows_models_by_name_too() -> None:
    """(service, model name) is asked when (service, key name) holds nothing."""
    shelf = Shelf({("vendor", "gpt-4"): "by model name"})
    assert shelf.secrets({}).provider_key("my-key", "gpt-4", "vendor") == "by model name"


def test_without_a_service_the_keyring_is_not_asked() -> None:
    """A model that names no service has its key in the environment or nowhere."""
    shelf = Shelf()
    assert shelf.secrets({}).provider_key("my-key", "gpt-4", None) is None
    assert shelf.asked == []


def test_a_new_variable_is_seen_at_the_next_call() -> None:
    """The environment is read at call time: a new model or key needs no restart."""
    environ: dict[str, str] = {}
    secrets = Shelf().secrets(environ)
    assert secrets.provider_key("later", "m", None) is None
    environ["LATER"] = "now"
    assert secrets.provider_key("later", "m", None) == "now"


def test_keyring_answers_are_kept_briefly() -> None:
    """Calls in quick succession ask the keyring once, found or not; a changed secret is seen after 30 seconds."""
    shelf = Shelf({("vendor", "k"): "old"})
    secrets = shelf.secrets({})
    assert [secrets.provider_key("k", "m", "vendor") for _ in range(3)] == ["old"] * 3
    assert shelf.asked == [("vendor", "k")]
    shelf.kept["vendor", "k"] = "new"
    shelf.seconds = CACHE_SECONDS
    assert secrets.provider_key("k", "m", "vendor") == "new"


def test_a_failing_keyring_leaves_its_last_answer() -> None:
    """When the keyring goes away, keys it gave before stay usable; it is not asked again at every call."""
    shelf = Shelf({("vendor", "k"): "known"})
    secrets = shelf.secrets({})
    assert secrets.provider_key("k", "m", "vendor") == "known"
    shelf.down, shelf.seconds = True, CACHE_SECONDS
    with structlog.testing.capture_logs() as logs:
        assert [secrets.provider_key("k", "m", "vendor") for _ in range(3)] == ["known"] * 3
    assert [entry["event"] for entry in logs] == ["keyring_unavailable"]
    assert "known" not in str(logs)


def test_the_services_own_secrets_are_no_provider_keys() -> None:
    """A model whose key is named like one of the service's secrets gets nothing, so none can be sent to an endpoint."""
    shelf = Shelf({("metasync", "ADMIN_API_KEY"): "crown jewels"})
    environ = {"ADMIN_API_KEY": "crown jewels", "API_KEY_PEPPER": "salt"}
    secrets = shelf.secrets(environ, reserved=("ADMIN_API_KEY", "API_KEY_PEPPER"))
    assert secrets.provider_key("admin-api-key", "m", "metasync") is None
    assert secrets.provider_key("API_KEY_PEPPER", "m", None) is None
    assert secrets.provider_key(None, "admin-api", None) is None


class TestSystemKeyring:
    """read_keyring against the real keyring library."""

    @pytest.fixture(autouse=True)
    def _restored(self) -> Iterator[None]:
        before = keyring.get_keyring()
        yield
        keyring.set_keyring(before)

    def test_no_back_end(self) -> None:
        """On a machine without a keyring (a container) the answer is KeyringUnavailable, not a crash."""
        keyring.set_keyring(NoKeyring())
        with pytest.raises(KeyringUnavailable, match="NoKeyringError"):
            read_keyring("metasync", "X")

    def test_a_locked_keyring_does_not_hold_the_start_up(self) -> None:
        """A back-end that waits for its user is given up on after the time allowed."""
        unlocked = threading.Event()

        class Locked(KeyringBackend):
            priority = 1

            def get_password(self, service: str, username: str) -> str | None:
                unlocked.wait(30)
                return "too late"

            def set_password(self, service: str, username: str, password: str) -> None:
                raise AssertionError("nothing is written")

        keyring.set_keyring(Locked())
        with pytest.raises(KeyringUnavailable, match="no answer"):
            read_keyring("metasync", "X", seconds=0.05)
        unlocked.set()


@pytest.mark.parametrize(
    "name",
    ["api_key", "client_api_key", "apiKey", "key", "Authorization", "password", "docs_secret", "prompt", "requestData"],
)
def test_fields_named_like_secrets_or_content_are_emptied(name: str) -> None:
    """Whatever the value, also inside other values."""
    event = Redactor()(None, "info", {name: "value", "inner": [{name: "value"}]})
    assert event == {name: REDACTED, "inner": [{name: REDACTED}]}


def test_other_fields_stay() -> None:
    """Ids, numbers, token counts and absent secrets are what a log is for."""
    event = {"job_id": "65a", "token": 3, "input_tokens": 12, "api_key": None, "model": "gpt-4"}
    assert Redactor()(None, "info", dict(event)) == event


@pytest.mark.parametrize(
    ("line", "clean"),
    [
        ("cannot reach mongodb://admin:pw@host/db", f"cannot reach mongodb://{REDACTED}@host/db"),
        ("sent Authorization: Bearer abcdef0123456789", f"sent Authorization: Bearer {REDACTED}"),
        ("wrong key sk-proj-abcdef123456", f"wrong key {REDACTED}"),
        ("the pepper is hunter2-hunter2!", f"the pepper is {REDACTED}!"),
        ('{"a":"http://h/x","b":"me@host"}', '{"a":"http://h/x","b":"me@host"}'),
        ("the bearer of news; basic facts", "the bearer of news; basic facts"),
    ],
)
def test_lines_lose_what_looks_like_a_secret(line: str, clean: str) -> None:
    """Known secrets, credentials in URLs and headers, and vendor keys go; the rest of the line stays readable."""
    assert Redactor(["hunter2-hunter2", ""]).text(line) == clean


def test_a_secret_with_quotes_is_found_in_json() -> None:
    """A secret that JSON writes differently is found in its written form too."""
    assert "dle" not in Redactor(['nee"dle']).text('{"event":"lost nee\\"dle"}')
