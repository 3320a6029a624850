"""`python -m demo`: exit code 0 only if every job was processed."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import httpx

from demo.interruption import Interrupted, Interruption
from demo.journey import FINAL, Journey, Refused, read_texts
from demo.provider import choices
from demo.screen import RESULTS_SHOWN, Progress, failure, result, table
from demo.service import LAST_BREATH_SECONDS, Service, ServiceDied, running_service

STALLED_SECONDS = 120.0
FAILURES_SHOWN = 3
Json = dict[str, Any]


class Stalled(Exception):
    """No job has finished for a long time; the text says what the service has to say about it."""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description="Runs real texts through Metasync over REST.")
    parser.add_argument("--jobs", type=int, default=None, help="how many of the texts (default: all)")
    parser.add_argument("--model", default=None, help="the real provider's model (default: a small one)")
    arguments = parser.parse_args(argv)
    interruption = Interruption()
    interruption.take_over()
    try:
        texts = read_texts(limit=arguments.jobs)
        print("Starting Metasync in development mode (embedded SQLite, a fresh temporary folder) ...", flush=True)
        with running_service() as service, interruption.raised(hurry=service.kill):
            service.wait_until_ready()
            return _watched(service, texts, arguments.model)
    except (ServiceDied, Refused, Stalled, httpx.TransportError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except Interrupted:
        print("\nStopped; nothing is left running.", file=sys.stderr)
        return 130


def _watched(service: Service, texts: Sequence[Json], model: str | None) -> int:
    """A connection that breaks is reported as what it nearly always is: the end of the service."""
    try:
        return _show(service, texts, model)
    except httpx.TransportError:
        service.check(LAST_BREATH_SECONDS)
        raise


def _show(service: Service, texts: Sequence[Json], model: str | None) -> int:
    with Journey(service.url, service.admin_key) as journey:
        prompt_id, choice = journey.prepare(choices(os.environ, model))
        print(f"It listens on {service.url}; a client, a prompt, a model and a worker are made.")
        print(f"Provider: {choice.why}.\n")
        summary, seconds = _run(journey, prompt_id, texts)
        print(f"\n{table(summary, seconds)}\n")
        _print_samples(journey, texts)
        if summary["PROCESSED"] != len(texts):
            print("\nNot every job was processed.", file=sys.stderr)
            return 1
        print("\nNow your own: make run")
        return 0


def _run(journey: Journey, prompt_id: str, texts: Sequence[Json]) -> tuple[Json, float]:
    """The last summary, and the seconds from the first byte posted to the last job settled."""
    progress = Progress(len(texts))
    started = moved = time.monotonic()
    best = -1
    summary: Json = {}
    try:
        journey.enqueue(prompt_id, texts)
        for summary in journey.summaries():
            done = sum(summary[status] for status in FINAL)
            progress.show(done, done - summary["PROCESSED"])
            moved = time.monotonic() if done > best else moved
            best = max(best, done)
            if time.monotonic() - moved > STALLED_SECONDS:
                raise Stalled(f"no job has finished for two minutes. A waiting one: {journey.explain_one_waiting()}")
    finally:
        progress.close()
    return summary, time.monotonic() - started


def _print_samples(journey: Journey, texts: Sequence[Json]) -> None:
    by_id = {text["id"]: text["text"] for text in texts}
    for job in journey.jobs("PROCESSED", RESULTS_SHOWN):
        print(result(job, by_id[job["id"]]))
    for job in journey.jobs("ERROR_PROCESSING", FAILURES_SHOWN):
        print(failure(job))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
