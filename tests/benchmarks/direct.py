"""What Metasync adds to being answered: direct calls and streams beside the provider asked by the same SDK."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median

from tests.benchmarks.account import MODEL, Account
from tests.benchmarks.stage import BACKENDS, LABEL, ROOT, Stage, resident_mb, wait_until
from tests.benchmarks.table import Row, at_least, at_most, number, percentile, ratios
from tests.support.backends import SQLITE

KINDS = {
    "complete": "POST /complete",
    "chat": "POST /v1/chat/completions",
    "stream": "a first streamed token",
}
CALLERS = (1, 16, 64)
SECONDS = 300
SETTLE = 2.0
HELD = 60.0
Found = dict[str, float]


def direct(stage: Stage) -> Iterator[Row]:
    """What direct calls and first streamed tokens add, at 1, 16 and 64 callers, and how many are answered a second."""
    for backend in BACKENDS:
        with stage.account(backend) as account:
            stage.provider.reset(0.0)
            for kind in KINDS:
                for callers in CALLERS:
                    yield _added(stage, account, backend, kind, callers)
                yield _rate(stage, account, backend, kind)


def _added(stage: Stage, account: Account, backend: str, kind: str, callers: int) -> Row:
    calls = stage.size(300 if callers == 1 else 800, 2 * callers)
    ours, bare = _rounds(stage, account, kind, calls, callers)
    return added(f"{KINDS[kind]} at {callers} callers, {LABEL[backend]}", ours, bare, alone=callers == 1)


def added(name: str, ours: Sequence[Found], bare: Sequence[Found], *, alone: bool) -> Row:
    """Medians are compared round by round; the goal is that of one caller."""
    medians = [[found["p50"] for found in each] for each in (ours, bare)]
    return Row(
        name=f"added by {name}",
        measured=median(one - other for one, other in zip(*medians, strict=True)),
        unit="ms",
        goal=at_most(2) if alone else None,
        baseline=median(medians[1]),
        note=f"baseline: the provider asked by the same SDK; {number(ratios(*medians))} times that in all, p99 "
        f"{number(median(found['p99'] for found in ours))} ms; {number(median(found['rate'] for found in ours))} "
        f"a second, bare {number(median(found['rate'] for found in bare))}",
    )


def _rate(stage: Stage, account: Account, backend: str, kind: str) -> Row:
    ours, bare = _rounds(stage, account, kind, stage.size(1500, 128), CALLERS[-1], "--plain")
    return Row(
        name=f"answers a second, {KINDS[kind]} at {CALLERS[-1]} callers, {LABEL[backend]}",
        measured=median(found["rate"] for found in ours),
        unit="1/s",
        goal=at_least(600),
        baseline=median(found["rate"] for found in bare),
        note="asked by a client that costs little; baseline: the provider asked by the same",
    )


def _rounds(
    stage: Stage, account: Account, kind: str, calls: int, callers: int, *more: str
) -> tuple[list[Found], list[Found]]:
    """Through Metasync, and the provider alone: that has no /complete, and is asked for the same by a chat."""
    asked = ["--calls", str(calls), "--callers", str(callers), *more]
    bare = "chat" if kind == "complete" else kind
    found = stage.rounds(
        {
            "ours": partial(_called, [*_ours(account, kind), *asked]),
            "bare": partial(_called, [bare, "--url", stage.provider.openai_url, "--model", MODEL, *asked]),
        }
    )
    return found["ours"], found["bare"]


def _ours(account: Account, kind: str) -> list[str]:
    base = str(account.replica.http.base_url).rstrip("/")
    url = base if kind == "complete" else f"{base}/v1"
    key = account.headers["client_api_key"]
    return [kind, "--url", url, "--key", key, "--model", account.model, "--prompt", account.prompt_id]


def _command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "tests.benchmarks.callers", *arguments]


def _called(arguments: list[str]) -> Found:
    done = subprocess.run(_command(arguments), cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=SECONDS)
    found: Found = json.loads(done.stdout)
    return found


def streams(stage: Stage) -> Iterator[Row]:
    """Memory that an open stream takes, its first token sent, and how long health takes meanwhile."""
    count = stage.size(500, 50)
    runs = stage.rounds({SQLITE: partial(_open, stage, count)}, times=stage.size(3, 1))[SQLITE]
    yield Row(
        name="memory per open stream, SQLite",
        measured=median(kilobytes for kilobytes, _ in runs),
        unit="KB",
        note=f"{count:,} open at a time, with both their connections; GET /health/live meanwhile p99 "
        f"{number(median(p99 for _, p99 in runs))} ms",
    )


def _open(stage: Stage, count: int) -> tuple[float, float]:
    """Kilobytes that each of so many open streams takes, and milliseconds of /health/live beside them."""
    with stage.account(SQLITE) as account:
        stage.provider.reset(0.0)
        _called([*_ours(account, "stream"), "--calls", "10", "--callers", "10", "--plain"])
        time.sleep(SETTLE)
        before = resident_mb(account.pid)
        stage.provider.reset(HELD)
        arguments = [*_ours(account, "stream"), "--calls", str(count), "--callers", str(count), "--plain"]
        with subprocess.Popen(_command(arguments), cwd=ROOT, stdout=subprocess.DEVNULL) as callers:
            wait_until(lambda: stage.provider.count()["in_flight"] == count, what=f"{count} open streams")
            time.sleep(SETTLE)
            full, healthy = resident_mb(account.pid), _health(account)
            callers.kill()
    return (full - before) * 1000 / count, percentile(healthy, 0.99)


def _health(account: Account) -> list[float]:
    took = []
    with account.plain() as ask:
        for _ in range(200):
            started = time.perf_counter()
            ask("GET", "/health/live")
            took.append((time.perf_counter() - started) * 1000)
    return took
