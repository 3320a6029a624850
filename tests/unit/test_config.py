"""Settings: where they come from, which wins, and what a person is told when they are wrong."""

import json
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringError
from pydantic import ValidationError

import config
from config import SECRET_NAMES, Settings, SettingsError, dev_banner, load_settings

REQUIRED = {
    "DB_CONNECTION_STRING": "mongodb://admin:s3cr3t-db@db.example/",
    "DOCS_SECRET": "s3cr3t-docs",
    "API_KEY_PEPPER": "s3cr3t-pepper",
    "ADMIN_API_KEY": "s3cr3t-admin",
}


class MemoryKeyring(KeyringBackend):
    """A back-end of the real keyring library that holds its secrets in memory."""

    priority: ClassVar[float] = 1

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.asked: list[str] = []
        self.broken = False

    def get_password(self, service: str, username: str) -> str | None:
        self.asked.append(username)
        if self.broken:
            raise KeyringError("the daemon is gone")
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password


@pytest.fixture(autouse=True)
def system_keyring() -> Iterator[MemoryKeyring]:
    before = keyring.get_keyring()
    memory = MemoryKeyring()
    keyring.set_keyring(memory)
    yield memory
    keyring.set_keyring(before)


@pytest.fixture
def env_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "env.json"
    path.write_text("{}", encoding="utf-8")
    monkeypatch.setattr(config, "ENV_JSON", path)
    return path


def test_defaults_are_the_contracts() -> None:
    """With only the required settings given, every other one has the contract's default."""
    settings = load_settings([], REQUIRED)
    assert (settings.db_name, settings.docs_user) == ("poc-llm-processor", "user")
    assert (settings.poll_interval, settings.max_items_per_batch, settings.num_llm_workers) == (10, 50, 10)
    assert (settings.host, settings.port) == ("0.0.0.0", 8001)
    assert (settings.lease_seconds, settings.worker_lease_seconds, settings.drain_seconds) == (60, 15, 20)
    assert (settings.max_body_bytes, settings.attempt_timeout_seconds) == (64 * 1024 * 1024, 600)
    assert settings.schema_reasks == 1
    assert (settings.sqlite_synchronous, settings.log_level, settings.log_format) == ("FULL", "INFO", "json")
    assert settings.dev is False


def test_env_json_states_and_explains_every_default() -> None:
    """The env.json that ships holds exactly the settings that are no secret, each with its default and a comment."""
    shipped = json.loads(config.ENV_JSON.read_text(encoding="utf-8"))
    fields = {name.upper(): field for name, field in Settings.model_fields.items() if name != "dev_folder"}
    expected = {name: field.default for name, field in fields.items() if name not in SECRET_NAMES}
    assert {name: value for name, value in shipped.items() if not name.startswith("//")} == expected
    assert {name: shipped[f"//{name}"] for name in expected} == {name: fields[name].description for name in expected}


def test_precedence(env_json: Path, system_keyring: MemoryKeyring) -> None:
    """Arguments win over the environment, that over env.json, that over the built-in default."""
    env_json.write_text(json.dumps({"PORT": 1, "POLL_INTERVAL": 11, "DOCS_USER": "json", "//PORT": "why"}))
    settings = load_settings(["--port", "3"], {**REQUIRED, "PORT": "2", "POLL_INTERVAL": "12"})
    assert (settings.port, settings.poll_interval, settings.docs_user, settings.db_name) == (
        3,
        12,
        "json",
        "poc-llm-processor",
    )


def test_keyring_fills_only_what_is_missing(system_keyring: MemoryKeyring) -> None:
    """A required setting that the environment lacks comes from the keyring; the others are not even asked for there."""
    system_keyring.set_password(config.KEYRING_SERVICE, "DOCS_SECRET", "from-keyring")
    settings = load_settings([], {**REQUIRED, "DOCS_SECRET": ""})
    assert settings.docs_secret.get_secret_value() == "from-keyring"
    assert settings.admin_api_key.get_secret_value() == REQUIRED["ADMIN_API_KEY"]
    assert system_keyring.asked == ["DOCS_SECRET"]


def test_keyring_is_not_touched_when_nothing_is_missing(system_keyring: MemoryKeyring) -> None:
    """A start whose environment is complete never asks the keyring."""
    load_settings([], REQUIRED)
    assert system_keyring.asked == []


def test_broken_keyring_counts_as_empty(system_keyring: MemoryKeyring) -> None:
    """A keyring that raises leads to the ordinary message about what is missing, not to its own traceback."""
    system_keyring.broken = True
    with pytest.raises(SettingsError) as caught:
        load_settings([], {})
    assert "DOCS_SECRET is missing" in str(caught.value)
    assert len(system_keyring.asked) == 1


def test_one_message_lists_everything_missing_and_wrong() -> None:
    """All missing settings and all bad values stand in one message, each with its name and how to set it."""
    with pytest.raises(SettingsError) as caught:
        load_settings(["--port", "99999"], {"POLL_INTERVAL": "often", "LOG_FORMAT": "xml", "DOCS_SECRET": ""})
    message = str(caught.value)
    for name in SECRET_NAMES:
        assert f"{name} is missing" in message
        assert f"export {name}=" in message
        assert f"python -m keyring set metasync {name}" in message
    for name in ("PORT:", "POLL_INTERVAL:", "LOG_FORMAT:"):
        assert name in message
    assert "--dev" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "-1"),
        ("PORT", "s3cr3t-pasted-into-the-wrong-place"),
        ("POLL_INTERVAL", "0"),
        ("POLL_INTERVAL", "3601"),
        ("MAX_ITEMS_PER_BATCH", "1001"),
        ("NUM_LLM_WORKERS", "0"),
        ("LEASE_SECONDS", "nan"),
        ("LEASE_SECONDS", "inf"),
        ("DRAIN_SECONDS", "-1"),
        ("MAX_BODY_BYTES", "1.5"),
        ("SQLITE_SYNCHRONOUS", "OFF"),
        ("LOG_LEVEL", "LOUD"),
    ],
)
def test_a_bad_value_names_its_setting_and_no_value(name: str, value: str) -> None:
    """A value out of range stops the start; the message names the setting and repeats neither value nor secrets."""
    with pytest.raises(SettingsError) as caught:
        load_settings([], {**REQUIRED, name: value})
    assert f"{name}:" in str(caught.value)
    assert "s3cr3t" not in str(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("SQLITE_SYNCHRONOUS", "normal", "sqlite_synchronous", "NORMAL"),
        ("LOG_LEVEL", "debug", "log_level", "DEBUG"),
        ("LOG_FORMAT", "CONSOLE", "log_format", "console"),
        ("LEASE_SECONDS", "2.5", "lease_seconds", 2.5),
        ("PORT", "0", "port", 0),
    ],
)
def test_values_are_read_generously(name: str, value: str, field: str, expected: object) -> None:
    """Letter case of a word does not matter, and durations may have a fraction."""
    assert getattr(load_settings([], {**REQUIRED, name: value}), field) == expected


def test_empty_means_not_given(env_json: Path) -> None:
    """An empty environment variable, as compose files pass them, leaves the default in place."""
    assert load_settings([], {**REQUIRED, "DB_NAME": "", "PORT": ""}).port == 8001


@pytest.mark.parametrize("argv", [["--admin-api-key", "x"], ["--db-connection-string=x"], ["--prot", "1"], ["stray"]])
def test_unknown_arguments_and_secrets_on_the_command_line_are_refused(argv: list[str]) -> None:
    """Secrets are no arguments (a process list shows those); what is unknown is an error with the usage."""
    with pytest.raises(SettingsError, match="usage"):
        load_settings(argv, REQUIRED)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "JSON"),
        ("[1]", "one JSON object"),
        ('{"PROT": 1}', "PROT is not a setting"),
        ('{"ADMIN_API_KEY": "s3cr3t"}', "ADMIN_API_KEY is a secret"),
        ('{"DEV_FOLDER": "/tmp"}', "DEV_FOLDER is not a setting"),
    ],
)
def test_a_bad_env_json_says_what_is_wrong(env_json: Path, text: str, said: str) -> None:
    """Broken JSON, unknown names and secrets in env.json stop the start with the reason."""
    env_json.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=said) as caught:
        load_settings([], REQUIRED)
    assert "s3cr3t" not in str(caught.value)


def test_env_json_may_be_absent(env_json: Path) -> None:
    """Without env.json the built-in defaults hold."""
    env_json.unlink()
    assert load_settings([], REQUIRED).port == 8001


def test_settings_are_frozen_and_show_no_secret() -> None:
    """Settings cannot be changed after the start, and neither repr nor a dump in JSON shows a secret."""
    settings = load_settings([], REQUIRED)
    with pytest.raises(ValidationError):
        settings.port = 1
    assert "s3cr3t" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert set(settings.secret_values()) == set(REQUIRED.values())


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("mongodb://admin:s3cr3t@db.example:27017/?appName=x", "db.example:27017"),
        ("mongodb://admin:s3cr3t@one:1,two:2/name", "one:1,two:2"),
        ("mongodb+srv://admin:s3cr3t@cluster.example", "cluster.example"),
        ("mongodb://admin:s3@cr3t@db.example/", "db.example"),
        ("mongodb://admin:12/s3cr3t@db.example/", ""),
        ("mongodb://admin:12?s3cr3t@db.example/", ""),
        ("mongodb://plain", "plain"),
        ("sqlite:////var/lib/metasync.db", ""),
        ("not a url", ""),
    ],
)
def test_the_hosts_of_the_database_are_shown_without_user_and_password(url: str, hosts: str) -> None:
    """What stands before the last @ is never shown, nor anything where an @ comes too late to tell."""
    assert load_settings([], {**REQUIRED, "DB_CONNECTION_STRING": url}).database_hosts == hosts


def test_built_directly_nothing_comes_from_the_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings(...) takes what it is given; only load_settings looks around."""
    monkeypatch.setenv("PORT", "1234")
    assert Settings.model_validate({name.lower(): "x" for name in SECRET_NAMES}).port == 8001


def test_the_environment_cannot_switch_development_mode_on() -> None:
    """A stray DEV or DEV_FOLDER in the environment does not turn production into development."""
    assert load_settings([], {**REQUIRED, "DEV": "1", "DEV_FOLDER": "x"}).dev is False


class TestDevelopmentMode:
    """`--dev` in an empty folder."""

    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def test_needs_nothing_and_stays_private(self, tmp_path: Path, system_keyring: MemoryKeyring) -> None:
        """No setting is needed; folder 0700, secrets 0600, on the loopback address; the keyring is left alone."""
        settings = load_settings(["--dev"], {})
        folder = tmp_path / ".metasync"
        assert settings.dev_folder == folder
        assert settings.host == "127.0.0.1"
        assert settings.db_connection_string.get_secret_value() == f"sqlite:///{folder / 'metasync.db'}"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert [path.name for path in folder.iterdir()] == ["secrets.env"]
        assert stat.S_IMODE((folder / "secrets.env").stat().st_mode) == 0o600
        assert len(settings.admin_api_key.get_secret_value()) == 64
        assert system_keyring.asked == []

    def test_the_next_start_uses_the_same_secrets(self) -> None:
        """Generated secrets are kept: client keys made yesterday are valid today."""
        assert load_settings(["--dev"], {}).secret_values() == load_settings(["--dev"], {}).secret_values()

    def test_lax_modes_are_tightened(self, tmp_path: Path) -> None:
        """A folder or file that others could read is closed again at the next start."""
        load_settings(["--dev"], {})
        (tmp_path / ".metasync").chmod(0o755)
        (tmp_path / ".metasync" / "secrets.env").chmod(0o644)
        load_settings(["--dev"], {})
        assert stat.S_IMODE((tmp_path / ".metasync").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / ".metasync" / "secrets.env").stat().st_mode) == 0o600

    def test_two_first_starts_at_once_agree(self, tmp_path: Path) -> None:
        """Whoever comes first makes the secrets; nobody reads a half-written file and nothing is left lying about."""
        together = threading.Barrier(8)

        def start(_: int) -> tuple[str, ...]:
            together.wait(10)
            return load_settings(["--dev"], {}).secret_values()

        with ThreadPoolExecutor(8) as threads:
            assert len(set(threads.map(start, range(8)))) == 1
        assert [path.name for path in (tmp_path / ".metasync").iterdir()] == ["secrets.env"]

    def test_the_environment_still_wins(self) -> None:
        """What is given explicitly is used in development mode too."""
        settings = load_settings(["--dev", "--host", "0.0.0.0"], {"ADMIN_API_KEY": "mine", "PORT": "9000"})
        assert (settings.host, settings.port) == ("0.0.0.0", 9000)
        assert settings.admin_api_key.get_secret_value() == "mine"

    def test_damaged_secrets_are_reported(self, tmp_path: Path) -> None:
        """A secrets file that lacks a name is not silently replaced: that would void every client key."""
        load_settings(["--dev"], {})
        (tmp_path / ".metasync" / "secrets.env").write_text("ADMIN_API_KEY=x\n")
        with pytest.raises(SettingsError, match="delete it"):
            load_settings(["--dev"], {})

    def test_an_unusable_folder_is_reported(self, tmp_path: Path) -> None:
        """Where the folder cannot be made, the message says so and names it."""
        (tmp_path / ".metasync").write_text("a file is in the way")
        with pytest.raises(SettingsError, match=r"cannot use .*\.metasync"):
            load_settings(["--dev"], {})

    def test_the_banner_tells_what_to_do_next_and_no_secret(self) -> None:
        """URL, the place of the admin key and a command to type; the key itself is not on the screen."""
        settings = load_settings(["--dev", "--port", "9001"], {})
        banner = dev_banner(settings)
        assert "http://127.0.0.1:9001" in banner
        assert ". ./.metasync/secrets.env" in banner
        assert "curl -X POST http://127.0.0.1:9001/clients" in banner
        assert not any(secret in banner for secret in settings.secret_values())
