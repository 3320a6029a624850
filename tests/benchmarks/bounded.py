"""One replica as a process of its own, without the API: pool, lanes and storage, whose operations it counts.

Prints "up", takes its worker on when it is sent a line, ends when its input does, and prints how often it did each
operation of the storage. `--seconds` and `--slack` are those of the limits' window (see llm_workers.capacity).
"""

import argparse
import gc
import json
import sys
from collections import Counter

from engine.records.values import WorkerConfig
from engine.storage.factory import open_storage
from llm_workers.capacity import Window
from llm_workers.lane_terms import LaneTerms
from tests.support.plant import Replica, replica
from tests.support.rig import new_worker
from utilities.clock import SystemClock
from utilities.logging import configure_logging

CAPACITY = 200


def employ(made: Replica) -> None:
    """A worker that runs here."""
    clock = SystemClock()
    config = WorkerConfig(poll_interval=1, max_items_per_batch=CAPACITY)
    made.storage.workers.add(made.pool.placed(new_worker(clock, config=config), clock.now()))  # type: ignore[attr-defined]
    made.pool.nudge()


def settle_interpreter() -> None:
    """As the service does."""
    sys.setswitchinterval(1e-4)
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bounded")
    parser.add_argument("--url", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--seconds", type=float, default=Window().seconds)
    parser.add_argument("--slack", type=float, default=Window().slack)
    given = parser.parse_args()
    configure_logging("WARNING")
    storage = open_storage(given.url, database=given.database)
    with replica(storage, given.name, LaneTerms(window=Window(given.seconds, slack=given.slack))) as made:
        settle_interpreter()
        print("up", flush=True)
        sys.stdin.readline()
        employ(made)
        sys.stdin.read()
        counts = Counter(made.storage.log)
    print(json.dumps(counts), flush=True)
    storage.close()


if __name__ == "__main__":
    main()
