"""What the service takes before it does anything: time to start, memory; and memory per job in flight."""

import http.client
import time
from collections.abc import Iterator
from contextlib import suppress
from statistics import median

from tests.benchmarks.stage import BACKENDS, LABEL, Stage, resident_mb, wait_until
from tests.benchmarks.table import Row, at_most, number, spread
from tests.support.mongod import free_port

SETTLE = 2.0
HELD = 30.0


def start(stage: Stage) -> Iterator[Row]:
    """From starting the process to its first answer of /health/live, on a database that has its tables already."""
    found = stage.rounds({backend: lambda backend=backend: _started(stage, backend) for backend in BACKENDS})
    for backend in BACKENDS:
        again = [second for _, second in found[backend]]
        first = median(first for first, _ in found[backend])
        yield Row(
            name=f"start to first /health/live, {LABEL[backend]}",
            measured=median(again),
            unit="s",
            goal=at_most(1.0),
            note=f"rounds {spread(again)}; on an empty database {number(first)} s",
        )


def _started(stage: Stage, backend: str) -> tuple[float, float]:
    """Seconds of a first start, which makes tables and indexes, and of a second one."""
    took = []
    with stage.fleet(backend) as (fleet, _):
        for _ in range(2):
            replica = fleet.add()
            replica.port = free_port()
            began = time.monotonic()
            replica.launch()
            while not _lives(replica.port):
                if time.monotonic() - began > 60:
                    raise TimeoutError(f"the service did not start:\n{replica.tail()}")
                time.sleep(0.005)
            took.append(time.monotonic() - began)
            replica.wait_up().kill()
    return took[0], took[1]


def _lives(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with suppress(OSError):
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200
    connection.close()
    return False


def memory(stage: Stage) -> Iterator[Row]:
    """Resident memory: idle after the start, idle after jobs, and what a job in flight adds."""
    in_flight = stage.size(1000, 100)
    for backend in BACKENDS:
        found = stage.rounds(
            {backend: lambda backend=backend: _held(stage, backend, in_flight)}, times=stage.size(3, 1)
        )
        runs = found[backend]
        yield Row(
            name=f"memory idle, {LABEL[backend]}",
            measured=median(idle for idle, _, _ in runs),
            unit="MB",
            goal=at_most(120),
            note=f"resident; {number(median(after for _, after, _ in runs))} MB after a first job, "
            "which loads the vendor's SDK",
        )
        yield Row(
            name=f"memory per job in flight, {LABEL[backend]}",
            measured=median((full - after) * 1000 / in_flight for _, after, full in runs),
            unit="KB",
            goal=at_most(60),
            note=f"{in_flight:,} in flight, with their connections",
        )


def _held(stage: Stage, backend: str, in_flight: int) -> tuple[float, float, float]:
    """Megabytes: fresh, after a first job, with so many jobs in flight."""
    with stage.account(backend, drain_seconds=0) as account:
        time.sleep(SETTLE)
        idle = resident_mb(account.pid)
        account.start(account.hire(10, in_flight // 10))
        stage.provider.reset(0.0)
        account.post(1)
        wait_until(lambda: account.ended() == 1, what="the first job")
        time.sleep(SETTLE)
        after = resident_mb(account.pid)
        stage.provider.reset(HELD)
        account.post(in_flight)
        wait_until(lambda: stage.provider.count()["in_flight"] == in_flight, what=f"{in_flight} jobs in flight")
        time.sleep(SETTLE)
        return idle, after, resident_mb(account.pid)
