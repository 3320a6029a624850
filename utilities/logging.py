"""One log for everything: structlog's own events and those of the standard library, rendered and redacted alike."""

import logging
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Literal, TextIO, cast

import orjson
import structlog

from utilities.secrets import Redactor

_QUIET = ("uvicorn.access", "openai", "anthropic", "httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "pymongo")
"""Never below WARNING: their finer levels hold prompts, headers and URLs, or repeat the service's own access line."""


class _Lenient:
    """A text stream whose failures cost the line, not the work: a full disk or a closed pipe must not end a job."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def configure_logging(
    level: str = "INFO",
    style: Literal["json", "console"] = "json",
    *,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Sends all logs of this process to `stream` (standard error), one line an event, none below `level`.

    `json` writes objects with event, level, logger and timestamp (ISO 8601, UTC) first among equals; `console` is for
    people. The given `secrets` and whatever looks like one never reach the stream (see utilities.secrets.Redactor).
    May be called again; the last call wins.
    """
    target = cast(TextIO, _Lenient(stream or sys.stderr))
    number = logging.getLevelNamesMapping()[level]
    redactor = Redactor(secrets)
    shared = _shared_processors(redactor)
    renderer = _redacted(_renderer(style, colors=(stream or sys.stderr).isatty()), redactor)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_Factory(target),
        cache_logger_on_first_use=True,
    )
    _route_standard_library(number, target, shared, renderer)


class _Factory:
    """Makes the writer of each logger; the logger's name is its first positional argument."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, *names: Any) -> structlog.WriteLogger:
        logger = structlog.WriteLogger(self._stream)
        logger.name = names[0] if names else ""  # type: ignore[attr-defined]  # add_logger_name reads it
        return logger


def _shared_processors(redactor: Redactor) -> list[structlog.types.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redactor,
    ]


def _renderer(style: str, *, colors: bool) -> structlog.types.Processor:
    if style == "console":
        return structlog.dev.ConsoleRenderer(colors=colors)
    return structlog.processors.JSONRenderer(serializer=_to_json)


def _redacted(render: structlog.types.Processor, redactor: Redactor) -> structlog.types.Processor:
    return lambda logger, method, event: redactor.text(str(render(logger, method, event)))


def _to_json(event: Any, **_options: Any) -> str:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()


def _route_standard_library(
    level: int, target: TextIO, shared: list[structlog.types.Processor], renderer: structlog.types.Processor
) -> None:
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", *_QUIET):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)
