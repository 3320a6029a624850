"""`python -m tests.benchmarks`: measures the goals, prints one table, writes it as JSON."""

import argparse
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks import batches, depth, direct, footprint, intake, latency, limits, processing, providers, runs
from tests.benchmarks.stage import ROOT, Stage, say
from tests.benchmarks.table import Row, Setting, table, write

BENCHMARKS: dict[str, Callable[[Stage], Iterator[Row]]] = {
    "start": footprint.start,
    "memory": footprint.memory,
    "authentication": intake.authentication,
    "batch": intake.batch,
    "single": intake.single,
    "pickup": latency.pickup,
    "reads": latency.reads,
    "direct": direct.direct,
    "streams": direct.streams,
    "batches": batches.batches,
    "cpu": processing.cpu,
    "makespan": processing.makespan,
    "instant": processing.instant,
    "replicas": processing.replicas,
    "providers": providers.providers,
    "limits": limits.limits,
    "runs": runs.runs,
    "depth": depth.depth,
}
DEFAULT_JSON = ROOT / ".cache" / "bench.json"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=", description="Measure Metasync. Needs Linux (/proc).")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds, of which the median counts")
    parser.add_argument("--quick", action="store_true", help="sizes too small to mean anything: does it run at all?")
    parser.add_argument("--json", type=Path, default=DEFAULT_JSON, metavar="FILE")
    return parser.parse_args(argv)


def measure(names: Sequence[str], *, rounds: int, quick: bool) -> list[Row]:
    rows: list[Row] = []
    stage = Stage(rounds=rounds, quick=quick)
    try:
        for number, name in enumerate(names, 1):
            say(f"[{number}/{len(names)}] {name} ({BENCHMARKS[name].__doc__})")
            started = time.monotonic()
            rows += BENCHMARKS[name](stage)
            say(f"  done in {time.monotonic() - started:.0f} s")
    finally:
        stage.close()
    return rows


def main(argv: Sequence[str]) -> int:
    given = parse(argv)
    started_at, load = datetime.now(UTC), os.getloadavg()
    rows = measure(given.only, rounds=given.rounds, quick=given.quick)
    setting = Setting(
        started_at=f"{started_at:%Y-%m-%d %H:%M} UTC",
        cores=os.cpu_count() or 0,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        rounds=given.rounds,
        quick=given.quick,
        load_before=load,
        load_after=os.getloadavg(),
    )
    print(setting, table(rows), sep="\n\n")
    write(given.json, setting, rows)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended too
    sys.exit(main(sys.argv[1:]))
