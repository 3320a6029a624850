"""So many callers at a time, each asking again and again, as a process of its own: of Metasync, or of the provider.

`sdk` is OpenAI's asynchronous client as it comes; `plain` sends bytes that are ready and reads as little as it can, so
that it is not what is measured. Prints {"p50": …, "p99": …, "rate": …}: milliseconds to an answer, of a stream to its
first token, and answers a second.
"""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from llm_workers.loops import new_event_loop
from tests.benchmarks.table import percentile

MESSAGES: Any = [{"role": "user", "content": "a benchmark's question, as long as a short sentence is"}]
WARM_UP = 5
Call = Callable[[], Awaitable[float]]
"""One call; the instant at which its answer, or first token, was there."""


def body(kind: str, model: str, prompt: str) -> dict[str, Any]:
    if kind == "complete":
        return {"prompts": [prompt], "model": model, "requestData": {"text": MESSAGES[0]["content"]}}
    return {"model": model, "messages": MESSAGES, **({"stream": True} if kind == "stream" else {})}


@asynccontextmanager
async def sdk(kind: str, url: str, key: str, content: dict[str, Any]) -> AsyncIterator[Call]:
    from openai import AsyncOpenAI

    async def complete() -> float:
        await client.post("/complete", cast_to=object, body=content)
        return time.perf_counter()

    async def chat() -> float:
        await client.chat.completions.create(**content)
        return time.perf_counter()

    async def stream() -> float:
        said = await client.chat.completions.create(**content)
        await anext(said)
        first = time.perf_counter()
        async for _ in said:
            pass
        return first

    async with AsyncOpenAI(api_key=key, base_url=url, max_retries=0, timeout=300) as client:
        yield {"complete": complete, "chat": chat, "stream": stream}[kind]


@asynccontextmanager
async def plain(kind: str, url: str, key: str, content: dict[str, Any]) -> AsyncIterator[Call]:
    """A connection for each call that is under way."""
    place, sent = urlsplit(url), json.dumps(content).encode()
    path = f"{place.path}/{'complete' if kind == 'complete' else 'chat/completions'}"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
    )
    request, end = head.encode() + sent, b"[DONE]\n\n" if kind == "stream" else b""
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call() -> float:
        reader, writer = idle.pop() if idle else await asyncio.open_connection(place.hostname, place.port)
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in answer[:16]:
            raise RuntimeError(answer.decode())
        if end:
            first = await reader.readuntil(b"\n\n") and time.perf_counter()
            await reader.readuntil(end)
            if b"chunked" in answer:
                await reader.readuntil(b"0\r\n\r\n")
        else:
            await reader.readexactly(_length(answer))
            first = time.perf_counter()
        idle.append((reader, writer))
        return first

    yield call
    for _, writer in idle:
        writer.close()


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])


async def measured(call: Call, calls: int, callers: int) -> dict[str, float]:
    numbers, took = iter(range(calls)), []

    async def again_and_again() -> None:
        for _ in numbers:
            began = time.perf_counter()
            took.append((await call() - began) * 1000)

    for _ in range(WARM_UP if calls > callers else 0):
        await asyncio.gather(*(call() for _ in range(callers)))
    started = time.perf_counter()
    await asyncio.gather(*(again_and_again() for _ in range(callers)))
    seconds = time.perf_counter() - started
    return {"p50": median(took), "p99": percentile(took, 0.99), "rate": calls / seconds}


async def _run(given: argparse.Namespace) -> dict[str, float]:
    content = body(given.kind, given.model, given.prompt)
    async with (plain if given.plain else sdk)(given.kind, given.url, given.key, content) as call:
        return await measured(call, given.calls, given.callers)


def main() -> None:
    parser = argparse.ArgumentParser(prog="callers")
    parser.add_argument("kind", choices=("complete", "chat", "stream"))
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", default="sk-of-no-worth")
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompt", default="")
    parser.add_argument(
        "--calls", type=int, required=True, help="in all; as many as callers: each one, unmeasured none"
    )
    parser.add_argument("--callers", type=int, required=True)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        print(json.dumps(runner.run(_run(parser.parse_args()))), flush=True)


if __name__ == "__main__":
    main()
