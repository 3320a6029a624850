"""How long one waits: for a job to be picked up, and for an answer while the workers are busy."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from statistics import median

from tests.benchmarks.account import Account
from tests.benchmarks.stage import BACKENDS, LABEL, Stage, wait_until
from tests.benchmarks.table import Row, at_most, number, percentile
from tests.support.backends import MONGO, SQLITE

PAUSE = 0.03
BUSY_LATENCY = 0.02
JOBS_BESIDE = 2000


def pickup(stage: Stage) -> Iterator[Row]:
    """From POST /jobs to the provider's call, one job at a time, the worker idle in the same process."""
    jobs = stage.size(100, 20)
    with ExitStack() as stack:
        accounts = {backend: stack.enter_context(stage.account(backend)) for backend in BACKENDS}
        for account in accounts.values():
            account.start(account.hire(1, 50))
            _picked_up(stage, account, 5)
        found = stage.rounds(
            {name: lambda account=account: _picked_up(stage, account, jobs) for name, account in accounts.items()}
        )
    for name, rounds in found.items():
        sent = [median(from_sent for from_sent, _ in pairs) * 1000 for pairs in rounds]
        answered = median(from_answer for pairs in rounds for _, from_answer in pairs) * 1000
        yield Row(
            name=f"from POST sent to provider called, idle worker, {LABEL[name]}",
            measured=median(sent),
            unit="ms",
            goal=at_most(10),
            note="includes the POST itself, validation and commit, which the goal leaves out; "
            f"from its answer {number(answered)} ms",
        )


def _picked_up(stage: Stage, account: Account, jobs: int) -> list[tuple[float, float]]:
    """Seconds from each POST's sending and from its answer to the call of the provider."""
    stage.provider.reset(0.0)
    posted = []
    with account.plain() as ask:
        for number_posted in range(jobs):
            sent = time.monotonic()
            ask("POST", "/jobs", account.job())
            posted.append((sent, time.monotonic()))
            stage.provider.wait_for(number_posted + 1)
            time.sleep(PAUSE)
    arrived = stage.provider.arrivals()
    return [(at - sent, at - answered) for at, (sent, answered) in zip(arrived, posted, strict=True)]


def reads(stage: Stage) -> Iterator[Row]:
    """GET /jobs/{id}, again and again from one caller, while 200 calls in flight keep the worker's loop saturated."""
    asked = stage.size(1000, 100)
    for backend in (SQLITE, MONGO):
        with stage.account(backend) as account:
            account.start(account.hire(4, 50))
            stage.provider.reset(BUSY_LATENCY)
            job_id = account.call("POST", "/jobs", account.job())["jobId"]
            wait_until(lambda: account.ended() >= 1, what="the first job")
            idle = _reading(account, job_id, asked)
            rounds = stage.rounds({backend: partial(_busy_reading, stage, account, job_id, asked)})[backend]
        yield Row(
            name=f"p99 of GET /jobs/{{id}} beside saturated workers, {LABEL[backend]}",
            measured=median(percentile(times, 0.99) for times, _ in rounds) * 1000,
            unit="ms",
            goal=at_most(5),
            baseline=percentile(idle, 0.99) * 1000,
            note=f"baseline: workers idle; p50 {number(median(median(times) for times, _ in rounds) * 1000)} ms busy, "
            f"{number(median(idle) * 1000)} idle; {number(median(rate for _, rate in rounds))} jobs/s meanwhile",
        )


def _busy_reading(stage: Stage, account: Account, job_id: str, asked: int) -> tuple[list[float], float]:
    """Answer times while jobs are processed, and how many jobs a second were."""
    target = account.ended()
    times: list[float] = []
    rates: list[float] = []
    while len(times) < asked:
        stage.provider.reset(BUSY_LATENCY)
        account.post(JOBS_BESIDE)
        stage.provider.wait_for(200)
        began, counted = time.monotonic(), stage.provider.count()["total"]
        times += _reading(account, job_id, 50)
        rates.append((stage.provider.count()["total"] - counted) / (time.monotonic() - began))
        target += JOBS_BESIDE
        wait_until(partial(_has_ended, account, target), what="the settlements")
    return times, median(rates)


def _has_ended(account: Account, count: int) -> bool:
    return account.ended() >= count


def _reading(account: Account, job_id: str, times: int) -> list[float]:
    """Answer times."""
    took = []
    with account.plain() as ask:
        for _ in range(times):
            started = time.perf_counter()
            ask("GET", f"/jobs/{job_id}")
            took.append(time.perf_counter() - started)
            time.sleep(0.002)
    return took
