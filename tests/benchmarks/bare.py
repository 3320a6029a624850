"""A loop that calls the provider and keeps nothing, as a process of its own: what Metasync is compared with.

A vendor's name means its own client as it comes. With `--ours` it is the provider and the transport that the service
calls it with, on the event loop and with the collector set as in the service. Prints {"seconds": …, "cpu_ms": …}, the
latter per call.
"""

import argparse
import asyncio
import gc
import json
import time
from dataclasses import replace
from functools import partial

from engine.llm import CompletionRequest, Endpoint
from llm_workers.loops import new_event_loop
from tests.benchmarks.bare_sdks import KEY, MOST_TOKENS, SDKS, SYSTEM, USER, Call
from tests.support.vendors import VENDORS


async def _measured(call: Call, calls: int, in_flight: int) -> dict[str, float]:
    numbers = iter(range(calls))

    async def one_after_another() -> None:
        for number in numbers:
            await call(number)

    await asyncio.gather(*(call(number) for number in range(min(in_flight, 20))))
    started, cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*(one_after_another() for _ in range(in_flight)))
    return {"seconds": time.monotonic() - started, "cpu_ms": (time.process_time() - cpu) * 1000 / calls}


async def with_sdk(name: str, url: str, calls: int, in_flight: int) -> dict[str, float]:
    async with SDKS[name](url) as call:
        return await _measured(call, calls, in_flight)


async def with_ours(name: str, url: str, calls: int, in_flight: int) -> dict[str, float]:
    from llm_workers.providers.registry import Registry
    from llm_workers.transport import Transport

    version = next(vendor.version for vendor in VENDORS if vendor.sdk == name)
    endpoint = Endpoint(sdk=name, base_url=url, deployment="fake", api_version=version, key=KEY)
    request = CompletionRequest(endpoint=endpoint, system=SYSTEM, user=USER, temperature=0.0, max_tokens=MOST_TOKENS)
    provider = Registry().create(name, Transport())

    async def call(number: int) -> object:
        return await provider.complete(replace(request, attempt_id=f"attempt-{number}"))

    try:
        await call(0)
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)
        return await _measured(call, calls, in_flight)
    finally:
        await provider.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bare")
    parser.add_argument("client", choices=SDKS)
    parser.add_argument("--ours", action="store_true")
    parser.add_argument("--url", required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    given = parser.parse_args()
    run = partial(with_ours if given.ours else with_sdk, given.client)
    with asyncio.Runner(loop_factory=new_event_loop if given.ours else None) as runner:
        print(json.dumps(runner.run(run(given.url, given.calls, given.in_flight))), flush=True)


if __name__ == "__main__":
    main()
