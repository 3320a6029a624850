"""What a backlog costs: claims and counts at a million jobs against a thousand."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from statistics import median

from engine.jobs.queue import ClaimFilter, ClaimRequest, JobQuery
from engine.records.store import Storage
from tests.benchmarks.account import MODEL, OPERATION, Account
from tests.benchmarks.stage import BACKENDS, LABEL, Stage, say
from tests.benchmarks.table import Row, at_most, number, spread
from tests.support.rig import IDS, new_job
from utilities.clock import SystemClock

SHALLOW = 1000
CLAIM = 50
CLAIMS = 10
FILL = 10_000
ASKED = 40
CLOCK = SystemClock()


def depth(stage: Stage) -> Iterator[Row]:
    """Claims in batches of 50 at 1,000,000 pending over 1,000; GET /jobs/summary at 1,000,000 jobs."""
    deep = stage.size(1_000_000, 20_000)
    for backend in BACKENDS:
        with ExitStack() as stack:
            shallow = stack.enter_context(stage.account(backend))
            full = stack.enter_context(stage.account(backend))
            fill(shallow, SHALLOW)
            seconds = fill(full, deep)
            first = first_summary(full)
            claims = stage.rounds({"shallow": partial(claimed, shallow), "deep": partial(claimed, full)})
            summaries = stage.rounds({"summary": partial(summarized, full)})["summary"]
        yield Row(
            name=f"claim at {deep:,} pending over claim at {SHALLOW:,}, {LABEL[backend]}",
            measured=median(claims["deep"]) / median(claims["shallow"]),
            unit="times",
            goal=at_most(1.2),
            note=f"{number(median(claims['deep']))} and {number(median(claims['shallow']))} µs a job, {CLAIM} a claim; "
            f"rounds {spread(claims['deep'])} and {spread(claims['shallow'])}",
        )
        yield Row(
            name=f"GET /jobs/summary at {deep:,} jobs, {LABEL[backend]}",
            measured=median(summaries),
            unit="ms",
            goal=at_most(50),
            note=f"rounds {spread(summaries)}; the first, which counts what nobody counted before, {number(first)}; "
            f"filled at {number(deep / seconds)} jobs/s, past the API",
        )


def fill(account: Account, count: int) -> float:
    """Puts so many jobs there, past the API; the seconds it took."""
    started = time.monotonic()
    for start in range(0, count, FILL):
        insert(account, min(FILL, count - start))
        if start % 100_000 == 0 and count > 100_000:
            say(f"  {start:,} of {count:,} jobs are there after {time.monotonic() - started:.0f} s")
    return time.monotonic() - started


def insert(account: Account, count: int) -> None:
    fields = {"operation": OPERATION, "model": MODEL, "working_prompts": (account.prompt_id,)}
    jobs = [new_job(CLOCK, account.client_id, id=job_id, **fields) for job_id in IDS.block(count)]
    account.storage.jobs.insert(jobs)


def claimed(account: Account) -> float:
    """Microseconds a job of claims in batches; as many jobs come back in, so that the depth stays."""
    _claim(account.storage, account.client_id)
    took = [_claim(account.storage, account.client_id) for _ in range(CLAIMS)]
    insert(account, CLAIM * (CLAIMS + 1))
    return median(took) / CLAIM * 1e6


def _claim(storage: Storage, client_id: str) -> float:
    now = CLOCK.now()
    request = ClaimRequest(
        filter=ClaimFilter(client_id=client_id), owner="benchmark", expires_at=now + timedelta(hours=1), limit=CLAIM
    )
    started = time.perf_counter()
    jobs = storage.jobs.claim(request, now)
    took = time.perf_counter() - started
    if len(jobs) != CLAIM:
        raise RuntimeError(f"claimed {len(jobs)} jobs instead of {CLAIM}")
    return took


def first_summary(account: Account) -> float:
    """Milliseconds; made by the process that filled the database, which also says that it has ended writing."""
    started = time.perf_counter()
    account.storage.jobs.summary(JobQuery(client_id=account.client_id))
    return (time.perf_counter() - started) * 1000


def summarized(account: Account) -> float:
    """The median of answer times, in milliseconds."""
    took = []
    for _ in range(ASKED):
        started = time.perf_counter()
        account.call("GET", "/jobs/summary")
        took.append((time.perf_counter() - started) * 1000)
    return median(took)
