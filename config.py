"""Settings: command line > environment > operating system's keyring > env.json > the defaults below.

Secrets come from the environment or the keyring only. Development mode (`--dev`) needs none of them: it keeps an
embedded database and generated secrets in ./.metasync (folder 0700, secrets 0600).
"""

import argparse
import json
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from engine.errors import MetasyncError
from utilities.secrets import KeyringUnavailable, read_keyring

KEYRING_SERVICE = "metasync"
ENV_JSON = Path(__file__).with_name("env.json")
DEV_FOLDER = Path(".metasync")
DEV_SECRETS_FILE = "secrets.env"
DEV_DATABASE_FILE = "metasync.db"
SECRET_NAMES = ("DB_CONNECTION_STRING", "DOCS_SECRET", "API_KEY_PEPPER", "ADMIN_API_KEY")
"""The settings without a default, which never stand in env.json, on the command line, in logs or in a provider call."""
GENERATED_NAMES = ("DOCS_SECRET", "API_KEY_PEPPER", "ADMIN_API_KEY")


class SettingsError(MetasyncError):
    """The service cannot start; the text is the complete message for the person who starts it."""

    code = "settings"


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Level = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)]
LogFormat = Annotated[Literal["json", "console"], BeforeValidator(_lower)]
Synchronous = Annotated[Literal["FULL", "NORMAL"], BeforeValidator(_upper)]
Required = Annotated[SecretStr, Field(min_length=1)]


class Settings(BaseSettings):
    """Everything the service can be told. Each field is the lower-case form of its environment variable.

    Built directly, it takes nothing from the surroundings; `load_settings` reads those.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        frozen=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    db_connection_string: Required = Field(
        description="Where jobs are kept: sqlite:///path/to/file.db, mongodb://... or mongodb+srv://..."
    )
    docs_secret: Required = Field(description="Password of the API documentation under /docs.")
    api_key_pepper: Required = Field(
        description="Keys the hashes of client API keys. Changing it makes every client key invalid."
    )
    admin_api_key: Required = Field(description="The administrator's key, sent as the header admin_api_key.")
    db_name: str = Field("poc-llm-processor", min_length=1, description="Database name (MongoDB only).")
    docs_user: str = Field("user", min_length=1, description="User name of the API documentation under /docs.")
    poll_interval: int = Field(10, ge=1, le=3600, description="Seconds between two polls of an idle worker, at most.")
    max_items_per_batch: int = Field(50, ge=1, le=1000, description="Jobs a worker keeps in flight at once, at most.")
    num_llm_workers: int = Field(10, ge=1, le=256, description="Worker threads of this process, at most.")
    host: str = Field("0.0.0.0", min_length=1, description="Address to listen on.")
    port: int = Field(8001, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    lease_seconds: float = Field(
        60, ge=1, le=3600, description="How long a claimed job stays with a worker that gives no sign of life."
    )
    worker_lease_seconds: float = Field(
        15, ge=1, le=3600, description="How long a dead replica's workers wait for another replica to take them over."
    )
    sqlite_synchronous: Synchronous = Field(
        "FULL",
        description="FULL: what was acknowledged survives a power cut. NORMAL: commits without waiting for the disk, "
        "and gives up the last moments before a power cut or a crash of the operating system (not of the service).",
    )
    max_body_bytes: int = Field(64 * 1024 * 1024, ge=1024, description="Largest request body accepted, in bytes.")
    drain_seconds: float = Field(
        20, ge=0, le=3600, description="How long calls in flight may finish after a stop signal; the rest go back."
    )
    attempt_timeout_seconds: float = Field(
        600, ge=1, le=86400, description="The longest one attempt at a job may take; then it counts as failed."
    )
    schema_reasks: int = Field(
        1, ge=0, le=5, description="How often an answer that misses its JSON schema is asked for again, at most."
    )
    max_direct_calls: int = Field(
        500, ge=1, le=10_000, description="Calls of POST /complete under way at a time, at most; more are 503."
    )
    batch_worker: bool = Field(
        False, description="Keep a shared worker that takes the jobs of /v1/batches; on in development mode."
    )
    log_level: Level = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_format: LogFormat = Field("json", description="json (one object per line) or console (for people).")
    dev_folder: Path | None = Field(None, description="The folder of development mode; None in production.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is its base's
        init_settings: PydanticBaseSettingsSource,
        *_: Any,
        **__: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @property
    def batch_worker_capacity(self) -> int | None:
        """Jobs that the shared worker for batches keeps in flight; None where there is to be none."""
        return self.max_items_per_batch if self.batch_worker or self.dev else None

    @property
    def dev(self) -> bool:
        """Whether this is development mode."""
        return self.dev_folder is not None

    @property
    def database_hosts(self) -> str:
        """Where the connection string leads, fit to be shown; empty for a file, and where an @ leaves it in doubt what
        is host and what is password."""
        place = self.db_connection_string.get_secret_value().partition("://")[2]
        authority, *rest = re.split(r"[/?]", place, maxsplit=1)
        return "" if "@" in "".join(rest) else authority.rpartition("@")[2]

    def secret_values(self) -> tuple[str, ...]:
        """Every secret in clear: for the log's redaction, nothing else."""
        return tuple(getattr(self, name.lower()).get_secret_value() for name in SECRET_NAMES)


Missing = Sequence[str]
Read = Callable[[Missing], Mapping[str, Any]]
"""Answers values by setting name, given the names that no stronger source has set."""

_OPTIONS = tuple(name for name in Settings.model_fields if name.upper() not in SECRET_NAMES and name != "dev_folder")


class _Source(PydanticBaseSettingsSource):
    """One level of the precedence: takes from `read` what is a setting; an empty text counts as not given."""

    def __init__(self, settings_cls: type[BaseSettings], read: Read) -> None:
        super().__init__(settings_cls)
        self._read = read

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - its base's
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        fields = [name for name in self.settings_cls.model_fields if name not in self.current_state]
        values = self._read([name.upper() for name in fields])
        found = {name: values.get(name.upper()) for name in fields}
        return {name: value for name, value in found.items() if value not in (None, "")}


def load_settings(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings for a command line without the program's name.

    Raises SettingsError with one message that names everything wrong or missing and how to set it; no secret in it.
    """
    arguments = vars(_parser().parse_args(argv))
    folder = DEV_FOLDER.absolute() if arguments.pop("dev") else None
    reads = (_environment(environ), _keyring if folder is None else _development(folder), _env_json)

    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings, *(_Source(settings_cls, read) for read in reads))

    try:
        return Layered(**arguments, dev_folder=folder)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}\n{self.format_usage()}".rstrip())


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python main_app.py",
        description="Metasync runs LLM prompts from a durable queue over REST.",
        epilog=f"Secrets come from the environment or the keyring: {', '.join(SECRET_NAMES)}.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--dev",
        action="store_true",
        default=False,
        help=f"Development mode: needs no settings, keeps all in {DEV_FOLDER}.",
    )
    for name in _OPTIONS:
        text = f"{Settings.model_fields[name].description} Default: {Settings.model_fields[name].default}."
        parser.add_argument(f"--{name.replace('_', '-')}", metavar=name.upper(), help=text.replace("%", "%%"))
    return parser


def _environment(environ: Mapping[str, str]) -> Read:
    return lambda names: {name: environ.get(name) for name in names if name != "DEV_FOLDER"}


def _keyring(names: Missing) -> Mapping[str, Any]:
    found: dict[str, str | None] = {}
    for name in set(names) & set(SECRET_NAMES):
        try:
            found[name] = read_keyring(KEYRING_SERVICE, name)
        except KeyringUnavailable:
            break
    return found


def _env_json(_names: Missing) -> Mapping[str, Any]:
    try:
        values = json.loads(ENV_JSON.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"env.json cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError("env.json must hold one JSON object: setting names and their values")
    given = {name: value for name, value in values.items() if not name.startswith("//")}
    for name in given:
        _check_allowed(name)
    return given


def _check_allowed(name: str) -> None:
    if name in SECRET_NAMES:
        raise SettingsError(f"{name} is a secret and must not stand in env.json; {_how_to_set(name)}")
    if name.lower() not in _OPTIONS:
        raise SettingsError(f"env.json: {name} is not a setting; known are {', '.join(map(str.upper, _OPTIONS))}")


def _development(folder: Path) -> Read:
    def read(_names: Missing) -> Mapping[str, Any]:
        try:
            generated = _generated_secrets(folder)
        except OSError as error:
            raise SettingsError(f"development mode cannot use {folder}: {error.strerror or error}") from error
        return {
            "DB_CONNECTION_STRING": f"sqlite:///{folder / DEV_DATABASE_FILE}",
            "HOST": "127.0.0.1",
            "LOG_FORMAT": "console",
            **generated,
        }

    return read


def _generated_secrets(folder: Path) -> dict[str, str]:
    """The secrets kept in `folder`, made at the first start. Two first starts at once agree on one file."""
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    kept = folder / DEV_SECRETS_FILE
    if not kept.exists():
        _write_once(kept, "".join(f"{name}={secrets.token_hex(32)}\n" for name in GENERATED_NAMES))
    kept.chmod(0o600)
    lines = (line.partition("=") for line in kept.read_text(encoding="utf-8").splitlines())
    found = {name.strip(): value.strip() for name, _, value in lines}
    if not all(found.get(name) for name in GENERATED_NAMES):
        raise SettingsError(f"{kept} is damaged; delete it, and the next start makes new secrets")
    return {name: found[name] for name in GENERATED_NAMES}


def _write_once(path: Path, text: str) -> None:
    """Creates `path` complete or not at all, readable for its owner only; an existing file stays as it is."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)


def _explain(error: ValidationError) -> str:
    lines = ["Metasync cannot start:"]
    for problem in error.errors(include_input=False, include_url=False):
        name = str(problem["loc"][0]).upper()
        if problem["type"] == "missing":
            lines += [f"  {name} is missing. {_description(name)}", f"      {_how_to_set(name)}"]
        else:
            lines.append(f"  {name}: {problem['msg']}. {_description(name)}")
    lines.append("To try Metasync without any settings: python main_app.py --dev")
    return "\n".join(lines)


def _description(name: str) -> str:
    return Settings.model_fields[name.lower()].description or ""


def _how_to_set(name: str) -> str:
    return f"set it with: export {name}='...'   or: python -m keyring set {KEYRING_SERVICE} {name}"


def dev_banner(settings: Settings) -> str:
    """What to show a person when development mode is up: the URL, where the admin key is, what to type next."""
    folder = settings.dev_folder or DEV_FOLDER
    kept = folder / DEV_SECRETS_FILE
    shown = kept.relative_to(Path.cwd()) if kept.is_relative_to(Path.cwd()) else kept
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    url = f"http://{host}:{settings.port}"
    return "\n".join(
        (
            "",
            f"Metasync is up:  {url}      (development mode; data in {shown.parent}, Ctrl-C stops)",
            f"Admin key:       ADMIN_API_KEY in {shown}",
            f"API in detail:   {url}/docs      (user {settings.docs_user}, password DOCS_SECRET in the same file)",
            "",
            "Type this in another terminal to make your first client:",
            "",
            f"  . ./{shown}" if not shown.is_absolute() else f"  . {shown}",
            f'  curl -X POST {url}/clients -H "admin_api_key: $ADMIN_API_KEY" \\',
            "       -H 'Content-Type: application/json' -d '{\"name\": \"my first client\"}'",
            "",
        )
    )
