"""A vendor's limits that replicas share: how much of them is used, how often they are broken, what that costs."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from engine.jobs.queue import JobQuery
from engine.jobs.states import JobState
from engine.records.store import Storage
from engine.records.values import Limits
from llm_workers.capacity import Window
from tests.benchmarks.stage import BACKENDS, LABEL, ROOT, Stage, say, wait_until
from tests.benchmarks.table import Row, at_least, at_most, number
from tests.support.backends import Database
from tests.support.factories import CLIENT, make_model, make_prompt
from tests.support.fake_provider.meter import Meter, Metered, meter_of
from tests.support.rig import new_job
from utilities.clock import SystemClock

MODEL = "m"
LATENCY = 0.5
REQUESTS, TOKENS = 3000, 600_000
MEAN_IN, MEAN_OUT = 100, 100
"""Tokens of a call: both limits bind at the same time."""
SPREAD_IN, SPREAD_OUT = 40, 80
PENALTY = 1 / 6
"""Retry-After of the vendor, of a window."""
_INSERT = 1000
_WITHIN = 600.0


@dataclass(frozen=True, slots=True)
class Scene:
    """So many jobs; the limits are for `window.seconds`."""

    jobs: int
    window: Window

    @property
    def limits(self) -> Limits:
        """As if the window were a minute."""
        share = self.window.seconds / 60
        return Limits(requests_per_minute=int(REQUESTS * share), tokens_per_minute=int(TOKENS * share))

    @property
    def meter(self) -> dict[str, Any]:
        seconds, limits = self.window.seconds, self.limits
        terms = {"requests": limits.requests_per_minute, "tokens": limits.tokens_per_minute}
        return {**terms, "seconds": seconds, "penalty": seconds * PENALTY}


@dataclass(frozen=True, slots=True)
class Outcome:
    """`operations` are the storage's, of all replicas, by name."""

    meter: Meter
    operations: Mapping[str, int]


class Vendor:
    """The fake provider, with a meter, as a process of its own."""

    def __init__(self, latency: float) -> None:
        command = [sys.executable, "-m", "tests.support.fake_provider", "--latency", str(latency * 1000)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.openai_url = self._process.stdout.readline().strip()
        self._http = httpx.Client(base_url=self.openai_url.removesuffix("/v1"), trust_env=False, timeout=30)

    def limit(self, terms: Mapping[str, Any]) -> None:
        self._http.put(f"/_meter/{MODEL}", json=terms).raise_for_status()

    def meter(self) -> Meter:
        return meter_of(self._http.get(f"/_meter/{MODEL}").raise_for_status().json())

    def close(self) -> None:
        self._http.close()
        self._process.terminate()
        self._process.communicate(timeout=10)


def sizes(count: int, seed: int) -> list[tuple[int, int]]:
    """Tokens in and out of so many calls, whose mean is exactly MEAN_IN + MEAN_OUT where their number is even."""
    rng = random.Random(seed)
    found = []
    for _ in range((count + 1) // 2):
        less, more = rng.randint(-SPREAD_IN, SPREAD_IN), rng.randint(-SPREAD_OUT, SPREAD_OUT)
        found += [(MEAN_IN + less, MEAN_OUT + more), (MEAN_IN - less, MEAN_OUT - more)]
    rng.shuffle(found)
    return found[:count]


def steady(calls: Sequence[Metered]) -> Sequence[Metered]:
    """Without the first and the last tenth, in which a run begins and ends."""
    tenth = len(calls) // 10
    return calls[tenth : len(calls) - tenth]


def rows_of(outcome: Outcome, scene: Scene, setting: str) -> Iterator[Row]:
    meter, limits = outcome.meter, scene.limits
    through = meter.let_through
    shared = sum(count for name, count in outcome.operations.items() if name.startswith("shared."))
    middle = number(meter.share(steady(through)))
    within = f"at most {meter.most()} of {limits.requests_per_minute} requests and {meter.most_tokens():,} of "
    within += f"{limits.tokens_per_minute or 0:,} tokens in any {scene.window.seconds:g} s"
    yield Row(
        name=f"limits used, {setting}",
        measured=meter.used(),
        unit="share",
        goal=at_least(0.97),
        note=f"from the first call to the last; without the first and last tenth {middle}",
    )
    yield Row(
        name=f"calls refused with 429, {setting}",
        measured=len(meter.refused) / len(meter.calls),
        unit="share",
        goal=at_most(0.005),
        note=within,
    )
    yield Row(
        name=f"storage calls for limits per job, {setting}",
        measured=shared / scene.jobs,
        unit="calls",
        goal=at_most(0.1),
        note=f"{outcome.operations.get('shared.change', 0)} changes and {outcome.operations.get('shared.get_many', 0)} "
        f"reads of what replicas share, {scene.jobs:,} jobs",
    )


def limits(stage: Stage) -> Iterator[Row]:
    """A provider that allows 3,000 requests and 600,000 tokens a minute, and calls that would use up both."""
    scene = Scene(stage.size(5000, 300), Window() if not stage.quick else Window(3.0, slack=0.1))
    for backend in BACKENDS:
        for replicas in (1, 2):
            setting = f"{replicas} {'replica' if replicas == 1 else 'replicas'}, {LABEL[backend]}"
            rows = list(rows_of(run(stage, backend, replicas, scene), scene, setting))
            say(f"  {setting}: {', '.join(number(row.measured) for row in rows)}")
            yield from rows


def run(stage: Stage, backend: str, replicas: int, scene: Scene) -> Outcome:
    """All jobs, from a queue that was filled before the replicas' workers start, at the same time."""
    with ExitStack() as stack:
        database, _ = stack.enter_context(stage.database(backend))
        vendor = stack.enter_context(closing(Vendor(LATENCY)))
        vendor.limit(scene.meter)
        storage = database.open()
        _fill(storage, scene, vendor.openai_url)
        processes = [stack.enter_context(_replica(database, f"r{at}", scene.window)) for at in range(replicas)]
        for process in processes:
            _send(process, "go\n")
        wait_until(lambda: _ended(storage) >= scene.jobs, within=_WITHIN, every=0.25, what="all jobs ended")
        operations = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
        names = {name for counts in operations for name in counts}
        return Outcome(vendor.meter(), {name: sum(counts.get(name, 0) for counts in operations) for name in names})


def _fill(storage: Storage, scene: Scene, url: str) -> None:
    prompt, clock = make_prompt(text="Answer as JSON.", name="p"), SystemClock()
    storage.prompts.add(prompt)
    fields = {"deployment": MODEL, "sdk": "OpenAI", "endpoint": url, "key": "SOME_KEY", "limits": scene.limits}
    storage.models.add(make_model(name=MODEL, **fields))
    made = [
        new_job(clock, CLIENT, working_prompts=(prompt.id,), model=MODEL, request_data=_data(tokens_in, tokens_out))
        for tokens_in, tokens_out in sizes(scene.jobs, seed=1)
    ]
    for start in range(0, len(made), _INSERT):
        storage.jobs.insert(made[start : start + _INSERT])


def _data(tokens_in: int, tokens_out: int) -> dict[str, Any]:
    """About four characters a token, of which a hundred are the prompt, the marker and the JSON around them."""
    usage = f"[[usage input={tokens_in} output={tokens_out}]]"
    return {"usage": usage, "text": "word " * max(0, (4 * tokens_in - 100) // 5)}


@contextmanager
def _replica(database: Database, name: str, window: Window) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.benchmarks.bounded", "--url", database.url, "--database", database.name]
    command += ["--name", name, "--seconds", str(window.seconds), "--slack", str(window.slack)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        process.kill()
        process.wait(10)


def _send(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()


def _ended(storage: Storage) -> int:
    counts = {row.status: row.count for row in storage.jobs.summary(JobQuery(client_id=CLIENT))}
    if counts.get(JobState.ERROR_PROCESSING):
        raise RuntimeError(f"{counts[JobState.ERROR_PROCESSING]} jobs failed")
    return counts.get(JobState.PROCESSED, 0)
