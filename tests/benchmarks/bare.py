"""A loop that calls the provider and keeps nothing, as a process of its own: what Metasync is compared with.

`sdk` is AsyncOpenAI as it comes; `transport` is the transport and the call that the service itself makes, on the event
loop and with the collector set as in the service. Prints {"seconds": …, "cpu_ms": …}, the latter per call.
"""

import argparse
import asyncio
import gc
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from engine.llm import CompletionRequest, Endpoint
from llm_workers.loops import new_event_loop

SYSTEM, USER = "Answer as JSON.", '{"text":"a benchmark job, as long as a short sentence is"}'
Call = Callable[[int], Awaitable[object]]


async def _measured(call: Call, calls: int, in_flight: int) -> dict[str, float]:
    numbers = iter(range(calls))

    async def one_after_another() -> None:
        for number in numbers:
            await call(number)

    await asyncio.gather(*(call(number) for number in range(min(in_flight, 20))))
    started, cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*(one_after_another() for _ in range(in_flight)))
    return {"seconds": time.monotonic() - started, "cpu_ms": (time.process_time() - cpu) * 1000 / calls}


async def with_sdk(url: str, calls: int, in_flight: int) -> dict[str, float]:
    import openai

    client = openai.AsyncOpenAI(api_key="sk-of-no-worth", base_url=f"{url}/v1", max_retries=0)

    async def call(number: int) -> object:
        return await client.chat.completions.create(
            model="fake",
            messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}],
            temperature=0.0,
            max_tokens=1000,
        )

    async with client:
        return await _measured(call, calls, in_flight)


async def with_transport(url: str, calls: int, in_flight: int) -> dict[str, float]:
    from llm_workers.providers.openai import OpenAiProvider
    from llm_workers.transport import Transport

    endpoint = Endpoint(sdk="OpenAI", base_url=f"{url}/v1", deployment="fake", key="sk-of-no-worth")
    request = CompletionRequest(endpoint=endpoint, system=SYSTEM, user=USER, temperature=0.0, max_tokens=1000)
    provider = OpenAiProvider(Transport())

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
    parser.add_argument("client", choices=("sdk", "transport"))
    parser.add_argument("--url", required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    given = parser.parse_args()
    run, loops = (with_sdk, None) if given.client == "sdk" else (with_transport, new_event_loop)
    with asyncio.Runner(loop_factory=loops) as runner:
        print(json.dumps(runner.run(run(given.url, given.calls, given.in_flight))), flush=True)


if __name__ == "__main__":
    main()
