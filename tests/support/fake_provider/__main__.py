"""`python -m tests.support.fake_provider [--port N] [--latency ms] [--seed N]`: a provider to try things with."""

import argparse
import asyncio
import random
import signal

from tests.support.fake_provider.server import PLAIN_ANSWER, FakeProvider
from tests.support.fake_provider.wire.port import Asked


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fake_provider", description="A fake LLM provider on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="milliseconds until an answer")
    parser.add_argument("--seed", type=int, help="vary the answers' score, reproducibly")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    rng = random.Random(arguments.seed)

    def varied(asked: Asked) -> str:
        return f'{{"answer": "ok", "score": {rng.randint(1, 10)}}}'

    def fixed(asked: Asked) -> str:
        return PLAIN_ANSWER

    answer = fixed if arguments.seed is None else varied
    fake = FakeProvider(port=arguments.port, latency=arguments.latency / 1000, answer=answer)
    await fake.start()
    print(fake.openai_url, flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await fake.stop()


if __name__ == "__main__":
    asyncio.run(_serve(_arguments()))
