"""Jobs through the whole service: CPU per job, makespan, an instant provider, two replicas."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

from tests.benchmarks.account import Account
from tests.benchmarks.stage import BACKENDS, LABEL, Provider, Stage, cpu_seconds
from tests.benchmarks.table import Row, at_least, at_most, number, ratios, spread
from tests.support.backends import MONGO, SQLITE

LATENCY = 0.5
CAPACITY = 50
CPU_GOAL = {SQLITE: 0.8, MONGO: 1.0}
INSTANT_GOAL = {SQLITE: 0.75, MONGO: 0.70}


@dataclass(frozen=True, slots=True)
class Run:
    """`cpu_ms` per job, of the service alone; `server_ms` that of the database's server."""

    seconds: float
    cpu_ms: float
    server_ms: float = 0.0


class Line:
    """A service with so many stopped workers of CAPACITY, which work off a queue that was filled before."""

    def __init__(self, account: Account, provider: Provider, in_flight: int, server: int | None = None) -> None:
        self._account = account
        self._provider = provider
        self._server = server
        replicas = len(account.replicas)
        each = in_flight // CAPACITY // replicas
        self._workers = [account.hire(each, CAPACITY, at) for at in range(replicas)]
        self.run(50, 0.0)  # what a first job loads

    def run(self, jobs: int, latency: float) -> Run:
        account, provider = self._account, self._provider
        provider.reset(latency)
        account.post(jobs)
        pids = [replica.pid for replica in account.replicas]
        before, served = sum(map(cpu_seconds, pids)), self._served()
        seconds = account.processed(jobs, self._start, lambda: provider.count()["total"] >= jobs)
        cpu, server = sum(map(cpu_seconds, pids)) - before, self._served() - served
        for at, workers in enumerate(self._workers):
            account.stop(workers, at)
        return Run(seconds, cpu * 1000 / jobs, server * 1000 / jobs)

    def _start(self) -> None:
        for at, workers in enumerate(self._workers):
            self._account.start(workers, at)

    def _served(self) -> float:
        return cpu_seconds(self._server) if self._server is not None else 0.0


def lines(stage: Stage, stack: ExitStack, in_flight: int) -> dict[str, Line]:
    """A line on each back-end."""
    made = {}
    for backend in BACKENDS:
        server = stage.server_pid() if backend == MONGO else None
        account = stack.enter_context(stage.account(backend))
        made[backend] = Line(account, stage.provider, in_flight, server)
    return made


def cpu(stage: Stage) -> Iterator[Row]:
    """CPU per job, 200 in flight at half a second, beside both bare loops."""
    jobs, in_flight, latency = stage.size(2000, 200), stage.size(200, 50), LATENCY if not stage.quick else 0.05
    provider = stage.provider

    def bare(client: str) -> Run:
        provider.reset(latency)
        return Run(**provider.bare("OpenAI", jobs, in_flight, ours=client == "transport"))

    with ExitStack() as stack:
        made = lines(stage, stack, in_flight)
        variants = {name: lambda line=line: line.run(jobs, latency) for name, line in made.items()}
        variants |= {client: lambda client=client: bare(client) for client in ("OpenAI", "transport")}
        runs = stage.rounds(variants)
    found = {name: [run.cpu_ms for run in measured] for name, measured in runs.items()}
    for backend in BACKENDS:
        server = median(run.server_ms for run in runs[backend])
        served = f"; mongod {number(server)} ms besides" if backend == MONGO and server else ""
        yield Row(
            name=f"CPU per job, {in_flight} in flight, {LABEL[backend]}",
            measured=median(found[backend]),
            unit="ms",
            goal=at_most(CPU_GOAL[backend]),
            baseline=median(found["OpenAI"]),
            note=f"baseline: bare AsyncOpenAI; rounds {spread(found[backend])}{served}",
        )
        yield Row(
            name=f"CPU per job over bare AsyncOpenAI, {LABEL[backend]}",
            measured=ratios(found[backend], found["OpenAI"]),
            unit="times",
            goal=at_most(1 / 3),
            note="two gains in one: the transport, and what the queue costs on top of it",
        )
        yield Row(
            name=f"CPU per job over a bare loop on our transport, {LABEL[backend]}",
            measured=ratios(found[backend], found["transport"]),
            unit="times",
            note=f"that loop: {number(median(found['transport']))} ms a call, and it keeps nothing",
        )


def makespan(stage: Stage) -> Iterator[Row]:
    """5,000 jobs of half a second, 500 in flight, from the request that starts the workers to the last settlement."""
    jobs, in_flight, latency = stage.size(5000, 500), stage.size(500, 100), LATENCY if not stage.quick else 0.1
    ideal = jobs / in_flight * latency
    with ExitStack() as stack:
        made = lines(stage, stack, in_flight)
        found = stage.rounds({name: lambda line=line: line.run(jobs, latency) for name, line in made.items()})
    for backend in BACKENDS:
        seconds = [run.seconds for run in found[backend]]
        yield Row(
            name=f"makespan of {jobs:,} jobs, {in_flight} in flight, over the ideal, {LABEL[backend]}",
            measured=median(seconds) / ideal,
            unit="times",
            goal=at_most(1.10),
            note=f"ideal {number(ideal)} s; rounds {spread(seconds)} s; starting the workers included",
        )


def instant(stage: Stage) -> Iterator[Row]:
    """Jobs a second with a provider that answers at once, over the bare loop on the same transport and call."""
    jobs, in_flight = stage.size(5000, 300), stage.size(200, 50)
    provider = stage.provider

    def bare(client: str) -> float:
        provider.reset(0.0)
        return jobs / provider.bare("OpenAI", jobs, in_flight, ours=client == "transport")["seconds"]

    with ExitStack() as stack:
        made = lines(stage, stack, in_flight)
        variants = {name: lambda line=line: jobs / line.run(jobs, 0.0).seconds for name, line in made.items()}
        variants |= {client: lambda client=client: bare(client) for client in ("transport", "OpenAI")}
        found = stage.rounds(variants)
    for backend in BACKENDS:
        over_sdk = ratios(found[backend], found["OpenAI"])
        yield Row(
            name=f"instant provider: jobs/s over a bare loop on our transport, {LABEL[backend]}",
            measured=ratios(found[backend], found["transport"]),
            unit="times",
            goal=at_least(INSTANT_GOAL[backend]),
            note=f"{number(median(found[backend]))} jobs/s against {number(median(found['transport']))} calls/s; "
            f"{number(over_sdk)} times bare AsyncOpenAI ({number(median(found['sdk']))} calls/s)",
        )


def replicas(stage: Stage) -> Iterator[Row]:
    """Two service processes on one MongoDB, against one."""
    busy, waiting = stage.size(4000, 200), stage.size(2000, 200)
    latency = LATENCY if not stage.quick else 0.05
    with ExitStack() as stack:
        alone = Line(stack.enter_context(stage.account(MONGO)), stage.provider, 200)
        both = Line(stack.enter_context(stage.account(MONGO, replicas=2)), stage.provider, 400)
        found = stage.rounds(
            {
                "one, busy": lambda: busy / alone.run(busy, 0.0).seconds,
                "two, busy": lambda: busy / both.run(busy, 0.0).seconds,
                "one, waiting": lambda: waiting / alone.run(waiting, latency).seconds,
                "two, waiting": lambda: 2 * waiting / both.run(2 * waiting, latency).seconds,
            }
        )
    goal = at_least(1.8)
    for kind, what in (("busy", "instant provider"), ("waiting", "200 in flight each, provider takes 500 ms")):
        one, two = found[f"one, {kind}"], found[f"two, {kind}"]
        yield Row(
            name=f"two replicas on one MongoDB over one, {what}",
            measured=ratios(two, one),
            unit="times",
            goal=goal,
            note=f"{number(median(two))} against {number(median(one))} jobs/s; mongod and the provider share the cores",
        )
