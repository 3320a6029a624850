"""The log: one form for all, nothing secret, and never a reason for work to fail."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from utilities.logging import configure_logging


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    shown = warnings.showwarning
    yield
    logging.captureWarnings(capture=False)
    warnings.showwarning = shown
    root.handlers[:], root.level = handlers, level
    structlog.configure(**config)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_both_kinds_of_logger_write_the_same_form() -> None:
    """An event of structlog and one of the standard library become JSON objects with the same fields."""
    stream = io.StringIO()
    configure_logging(stream=stream)
    structlog.get_logger("engine").info("job_settled", job_id="1")
    logging.getLogger("uvicorn.error").info("Started %s", "server")
    own, foreign = lines(stream)
    assert own.pop("timestamp").endswith("Z")
    assert own == {"event": "job_settled", "job_id": "1", "level": "info", "logger": "engine"}
    assert foreign.pop("timestamp").endswith("Z")
    assert foreign == {"event": "Started server", "level": "info", "logger": "uvicorn.error"}


def test_secrets_do_not_reach_the_stream() -> None:
    """Neither as a field, nor in a message, nor inside a traceback."""
    stream = io.StringIO()
    configure_logging(secrets=["crown-jewels"], stream=stream)
    log = structlog.get_logger("x")
    log.info("e", api_key="abc-def", note="crown-jewels")
    logging.getLogger("pymongo.client").warning("lost mongodb://u:pass-word@h, crown-jewels")
    try:
        int("crown-jewels")
    except ValueError:
        log.exception("failed")
    text = stream.getvalue()
    assert "ValueError" in text
    assert not any(secret in text for secret in ("abc-def", "crown-jewels", "pass-word"))


def test_vendor_libraries_cannot_log_prompts() -> None:
    """Even at DEBUG the vendors' libraries stay above their request dumps, and uvicorn's access lines stay away."""
    stream = io.StringIO()
    configure_logging("DEBUG", stream=stream)
    for name in ("openai", "openai._base_client", "httpx", "anthropic", "uvicorn.access"):
        logging.getLogger(name).debug("body: the prompt")
        logging.getLogger(name).info("body: the prompt")
    structlog.get_logger("engine").debug("seen")
    assert [line["event"] for line in lines(stream)] == ["seen"]


def test_level() -> None:
    """Nothing below the level is written, from either kind of logger."""
    stream = io.StringIO()
    configure_logging("WARNING", stream=stream)
    structlog.get_logger("a").info("no")
    logging.getLogger("b").info("no")
    structlog.get_logger("a").warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


def test_console_style_is_plain_text_without_a_terminal() -> None:
    """People's form: one line with the event and its fields, no colour codes in a file."""
    stream = io.StringIO()
    configure_logging(style="console", secrets=["crown-jewels"], stream=stream)
    structlog.get_logger("engine").info("started", port=8001, note="crown-jewels")
    assert "started" in stream.getvalue()
    assert "port=8001" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
    assert "crown-jewels" not in stream.getvalue()


def test_context_is_on_every_line() -> None:
    """What is bound to the context (a correlation id) is on the lines written inside it."""
    stream = io.StringIO()
    configure_logging(stream=stream)
    with structlog.contextvars.bound_contextvars(correlation_id="c-1"):
        structlog.get_logger("a").info("in")
    structlog.get_logger("a").info("out")
    assert [line.get("correlation_id") for line in lines(stream)] == ["c-1", None]


def test_a_full_disk_costs_the_line_not_the_work() -> None:
    """A stream that cannot be written to makes no log call raise."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    configure_logging(stream=Full())
    structlog.get_logger("a").info("lost")
    logging.getLogger("b").warning("lost")


def test_odd_values_are_written_somehow() -> None:
    """A value that JSON cannot express is written by its repr instead of failing the caller."""
    stream = io.StringIO()
    configure_logging(stream=stream)
    structlog.get_logger("a").info("odd", value={1: object()}, error=KeyError("k"))
    assert lines(stream)[0]["error"] == "KeyError('k')"


def test_warnings_are_logged() -> None:
    """Python's warnings arrive in the log instead of on a bare stream."""
    stream = io.StringIO()
    configure_logging(stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old API", stacklevel=1)
    assert "old API" in lines(stream)[0]["event"]
