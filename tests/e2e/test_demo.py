"""What a newcomer sees first: the demo really runs, tells the truth, and leaves nothing behind."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from demo.journey import read_texts
from demo.provider import choices
from demo.screen import Progress, failure, result, table
from demo.service import ROOT, STOP_SECONDS, running_service
from tests.support.fake_provider import FakeProvider, Rule, fault
from tests.support.waiting import eventually

KEYS = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL")
SECONDS = 90


def environment(folder: Path, **more: str) -> dict[str, str]:
    """This environment without provider keys, with temporary folders made under `folder`."""
    kept = {name: value for name, value in os.environ.items() if name not in KEYS}
    return {**kept, "TMPDIR": str(folder), **more}


def demo(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demo", *arguments],
        cwd=ROOT,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@contextmanager
def started(folder: Path, *arguments: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A demo in a process group of its own, as a terminal starts it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "demo", *arguments],
        cwd=ROOT,
        env=environment(folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=SECONDS)


def group_is_gone(group: int) -> bool:
    """Also where nobody has collected the exit code of an orphan yet."""
    return all(state.startswith("Z") for _, _, in_group, state in processes() if in_group == group)


def processes() -> list[tuple[int, int, int, str]]:
    """Id, parent's id, process group and state of everything that runs on this machine."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,pgid=,stat="], capture_output=True, text=True, timeout=30, check=True
    )
    rows = (line.split() for line in listing.stdout.splitlines())
    return [(int(pid), int(parent), int(group), state) for pid, parent, group, state in rows]


def children(parent: int) -> list[int]:
    return [pid for pid, ppid, _, _ in processes() if ppid == parent]


@contextmanager
def calling(folder: Path, **more: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A demo whose calls are in flight and never answered, and the id of its service and of that one's group."""
    with FakeProvider() as fake:
        fake.hold()
        with started(folder, "--jobs", "20", OPENAI_BASE_URL=fake.openai_url, **more) as process:
            eventually(lambda: fake.seen.in_flight > 0, within=60, what="a call in flight")
            (service,) = children(process.pid)
            yield process, service


def cell(output: str, name: str) -> str:
    """The value that the table of `output` shows for `name`."""
    found = re.search(rf"^ *\| {name} +\| +(.*?) *\|$", output, re.MULTILINE)
    assert found, output
    return found[1]


def test_every_text_is_processed_without_any_key(tmp_path: Path) -> None:
    """With nothing configured, all 300 texts go through; table and results are shown; nothing stays on the disk."""
    ended = demo(tmp_path)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert (cell(ended.stdout, "jobs"), cell(ended.stdout, "failures")) == ("300", "0")
    assert cell(ended.stdout, "tokens") == "300 in, 300 out"
    assert cell(ended.stdout, "cost") == "0.2250 USD"
    assert len(re.findall(r"^ +-> \{", ended.stdout, re.MULTILINE)) == 3
    assert "300/300 jobs" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_openai_compatible_endpoint_is_used_on_the_same_path(tmp_path: Path) -> None:
    """With OPENAI_BASE_URL, each text costs that endpoint exactly one call, under the model asked for."""
    with FakeProvider() as fake:
        ended = demo(tmp_path, "--jobs", "30", "--model", "some-model", OPENAI_BASE_URL=fake.openai_url)
        assert ended.returncode == 0, ended.stderr + ended.stdout
        assert dict(fake.seen.by_model) == {"some-model": 30}
    assert fake.openai_url in ended.stdout


def test_anthropic_is_used_with_its_own_sdk(tmp_path: Path) -> None:
    """With ANTHROPIC_API_KEY each text is one call in Anthropic's own wire format."""
    with FakeProvider() as fake:
        ended = demo(tmp_path, "--jobs", "10", ANTHROPIC_API_KEY="a-key-of-no-worth", ANTHROPIC_BASE_URL=fake.url)
        assert ended.returncode == 0, ended.stderr + ended.stdout
        assert [call.wire for call in fake.seen.calls] == ["anthropic"] * 10
    assert "a-key-of-no-worth" not in ended.stdout + ended.stderr


def test_a_failed_job_is_shown_and_fails_the_demo(tmp_path: Path) -> None:
    """If one job ends in an error, the exit code is 1, the table counts it, and its error can be read."""
    text = read_texts(limit=1)[0]
    with FakeProvider() as fake:
        fake.add(Rule(fault("status", code=400), containing=text["text"][:30]))
        ended = demo(tmp_path, "--jobs", "6", OPENAI_BASE_URL=fake.openai_url)
    assert ended.returncode == 1
    assert (cell(ended.stdout, "jobs"), cell(ended.stdout, "failures")) == ("6", "1")
    assert f"  {text['id']}: " in ended.stdout
    assert "Not every job was processed" in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C (to the whole group) and SIGTERM (to the demo alone), with calls in flight: no process, no folder."""
    with calling(tmp_path, DRAIN_SECONDS="1") as (process, service):
        if number is signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        assert_stopped(process, service, tmp_path)


def test_a_second_signal_hurries_the_end(tmp_path: Path) -> None:
    """A Ctrl-C while the service takes its time to drain ends it at once, and as cleanly as the first one would."""
    with calling(tmp_path, DRAIN_SECONDS="60") as (process, service):
        (log,) = tmp_path.glob("*/service.log")
        os.killpg(process.pid, signal.SIGINT)
        eventually(lambda: "drain_begins" in log.read_text(encoding="utf-8"), what="the service drains")
        asked_at = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        assert_stopped(process, service, tmp_path)
        assert time.monotonic() - asked_at < STOP_SECONDS / 2


def test_a_signal_while_the_service_starts(tmp_path: Path) -> None:
    """Ctrl-C before there is a service to talk to, or a handler in it: no process, no folder."""
    with started(tmp_path) as process:
        (service,) = eventually(lambda: children(process.pid), within=60, every=0.001, what="a service")
        os.killpg(process.pid, signal.SIGINT)
        assert_stopped(process, service, tmp_path)


def assert_stopped(process: subprocess.Popen[str], service: int, folder: Path) -> None:
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, errors
    assert "nothing is left running" in errors
    assert group_is_gone(process.pid)
    assert group_is_gone(service)
    assert list(folder.iterdir()) == []


def test_a_killed_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    """SIGKILL leaves the demo no time to stop its service: the service stops itself, and takes the folder with it."""
    with calling(tmp_path, DRAIN_SECONDS="1") as (process, service):
        process.kill()
        eventually(lambda: group_is_gone(service), within=60, every=0.2, what="no service")
        assert list(tmp_path.iterdir()) == []


def test_a_service_that_cannot_start_shows_why(tmp_path: Path) -> None:
    """When the service ends at its start, the demo says so and shows the end of its log."""
    ended = demo(tmp_path, LOG_LEVEL="LOUD")
    assert ended.returncode == 1
    assert "The service ended with exit code" in ended.stderr
    assert "LOG_LEVEL:" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_service_that_dies_is_reported(tmp_path: Path) -> None:
    """A service killed under way ends the demo with exit code 1 and the reason, not with a hang."""
    with calling(tmp_path) as (process, service):
        os.kill(service, signal.SIGKILL)
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "The service ended with exit code -9" in errors


def test_what_make_run_suggests_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two lines that a development start tells a newcomer to type really make a client, taken letter by letter."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with running_service(environment(tmp_path)) as service:
        service.wait_until_ready()
        (folder,) = tmp_path.iterdir()
        shown = (folder / "service.log").read_text(encoding="utf-8")
        typed = re.search(r"^  \. \./.*?^$", shown, re.MULTILINE | re.DOTALL)
        assert typed, shown
        arguments = arguments_of_curl(typed[0], folder)
        headers = dict(value.split(": ", 1) for option, value in pairwise(arguments) if option == "-H")
        body = next(value for option, value in pairwise(arguments) if option == "-d")
        url = next(value for value in arguments if value.startswith(service.url))
        answer = httpx.request(arguments[1], url, content=body, headers=headers, trust_env=False)
    assert answer.status_code == 201, answer.text
    assert len(answer.json()["api_key"]) == 64


def arguments_of_curl(script: str, folder: Path) -> list[str]:
    """Runs a shell script in `folder` in which curl, which not every machine has, only tells its arguments."""
    told = f"curl() {{ {sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' \"$@\"; }}\n{script}"
    ended = subprocess.run(["sh", "-c", told], cwd=folder, capture_output=True, text=True, timeout=30, check=True)
    arguments: list[str] = json.loads(ended.stdout)
    return arguments


def test_the_texts_are_many_and_different() -> None:
    """Three hundred different texts with different ids, none longer than a paragraph, each with its source."""
    texts = read_texts()
    assert len(texts) == 300
    assert len({text["id"] for text in texts}) == len({text["text"] for text in texts}) == 300
    assert all(10 <= len(text["text"]) <= 300 and text["source"] for text in texts)
    assert {text["kind"] for text in texts} == {"review", "ticket", "passage"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, [("test", "NONE")]),
        ({"OPENAI_API_KEY": "k"}, [("OpenAI", "OPENAI_API_KEY")]),
        ({"OPENAI_BASE_URL": "http://h/v1", "ANTHROPIC_API_KEY": "k"}, [("OpenAI", "OPENAI_API_KEY")]),
        ({"ANTHROPIC_API_KEY": "k"}, [("Anthropic", "ANTHROPIC_API_KEY"), ("OpenAI", "ANTHROPIC_API_KEY")]),
    ],
)
def test_the_environment_chooses_the_provider(environ: dict[str, str], expected: list[tuple[str, str]]) -> None:
    """A base URL wins, then OpenAI's key, then Anthropic's (its own sdk first, else its compatible endpoint)."""
    found = choices(environ)
    assert [(choice.sdk, choice.key) for choice in found] == expected
    assert all(value != "k" for choice in found for value in choice.body().values())


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_redraws_one_line() -> None:
    """On a terminal the bar stays on its line and says how many failed."""
    screen = Terminal()
    progress = Progress(4, screen)
    progress.show(1, 0)
    progress.show(4, 1)
    progress.close()
    assert screen.getvalue().count("\n") == 1
    assert screen.getvalue().endswith("100%  4/4 jobs, 1 failed \n")


def test_progress_in_a_file_writes_each_tenth_once() -> None:
    """Without a terminal there is no control character, and at most one line for each tenth."""
    screen = io.StringIO()
    progress = Progress(100, screen)
    for done in range(101):
        progress.show(done, 0)
    assert len(screen.getvalue().splitlines()) == 11
    assert "\r" not in screen.getvalue()


def test_a_table_without_metrics_is_still_a_table() -> None:
    """When nothing was processed there are no tokens and no cost to show, and the failures are counted."""
    shown = table({"total": 2, "PROCESSED": 0, "processingMetrics": None}, 0.5)
    assert (cell(shown, "failures"), cell(shown, "cost")) == ("2", "unknown")


def test_results_and_failures_fit_on_their_lines() -> None:
    """Long texts are cut, line by line; a failure shows its kind and message."""
    shown = result({"id": "a", "responseData": {"answer": "x" * 500}}, "y" * 500)
    assert max(map(len, shown.splitlines())) <= 120
    job = {"id": "b", "status": "ERROR_PROCESSING", "errorData": {"errorType": "Oops", "errorMessage": "no luck"}}
    assert failure(job) == "  b: Oops: no luck"
