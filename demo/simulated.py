"""A provider without a key: `python -m demo.simulated` speaks OpenAI's chat completions, and simulates the models.

A model's name says which world and which part it plays: `sim:fields:0:work`, `sim:judged:3:judge`, `sim:fields:0:meta`;
a size may follow, as in `sim:fields:0:work:small` (demo.landscape.TIERS). The same request gets the same answer, in
every process.
"""

import argparse
import asyncio
import csv
import json
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from aiohttp import web

from demo.landscape import LANDSCAPES, TIERS, World, as_text, world
from demo.meta_model import edited, objects

_NUMBER = re.compile(r"#(\d+)")
_FIELDS_WANTED = re.compile(r"Your output fields are:\n(.*?)\n\s*All interactions", re.DOTALL)
_FIELD = re.compile(r"^\d+\. `(\w+)`", re.MULTILINE)
_TEXTS_WANTED = re.compile(r"with (\d+) texts")
Body = Mapping[str, Any]


class Unanswerable(Exception):
    """The request is not one for a simulated model; the text says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to a simulated model: role and text of each message, the world and the model's size."""

    world: World
    tier: str
    messages: tuple[tuple[str, str], ...]
    seed: int | None

    @property
    def text(self) -> str:
        return "\n".join(text for _, text in self.messages)

    @property
    def system(self) -> str:
        return "\n".join(text for role, text in self.messages if role == "system")


def completion(body: Body) -> dict[str, Any]:
    """The response to a chat completion. Raises Unanswerable."""
    role, asked = _asked(body)
    texts = [_ROLES[role](asked, index) for index in range(int(body.get("n") or 1))]
    return _wire(str(body["model"]), asked, texts)


def _asked(body: Body) -> tuple[str, Asked]:
    parts = str(body.get("model", "")).split(":")
    tier = parts[4] if len(parts) == 5 else ""
    if len(parts) not in (4, 5) or parts[1] not in LANDSCAPES or not parts[2].isdigit() or parts[3] not in _ROLES:
        raise Unanswerable("model must be sim:<landscape>:<seed>:<work|judge|meta>, with :large, :medium or :small")
    if tier not in TIERS:
        raise Unanswerable("the model's size must be large, medium or small")
    messages = tuple((str(one["role"]), _text_of(one)) for one in body.get("messages", []))
    return parts[3], Asked(world(parts[1], int(parts[2])), tier, messages, body.get("seed"))


def _text_of(message: Body) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content)


def _number_of(text: str) -> int:
    numbers = _NUMBER.findall(text)
    if not numbers:
        raise Unanswerable("the request holds no note (#number)")
    return int(numbers[-1])


def _work(asked: Asked, _index: int) -> str:
    """The last message holds the note, the system messages the prompt; pairs between them are worked examples."""
    shown = tuple(
        _number_of(text)
        for (role, text), (following, _) in pairwise(asked.messages)
        if role == "user" and following == "assistant"
    )
    number = _number_of(asked.messages[-1][1])
    answer = as_text(asked.world.answer(asked.system, number, tier=asked.tier, shown=shown))
    return _laid_out(asked, answer, "answer")


def _judge(asked: Asked, _index: int) -> str:
    """One answer is scored, of two the better one is named: the request's own words say which is wanted."""
    of, number = asked.world, _number_of(asked.text)
    wanted = of.wanted(number)
    found = [one for one in objects(asked.text) if set(one) & set(wanted)]
    if '"winner"' in asked.text:
        return _winner(*(of.judged(number, one, tier=asked.tier) for one in found[-2:]))
    answer = next((one for one in reversed(found) if one != wanted), wanted if found else {})
    score = of.judged(number, answer, tier=asked.tier)
    return json.dumps({"score": score, "pass": score >= 0.99, "feedback": of.feedback(number, answer)})


def _winner(first: float = 0.0, second: float = 0.0) -> str:
    winner = "tie" if first == second else "A" if first > second else "B"
    return json.dumps({"winner": winner, "confidence": 0.8, "reason": "It is closer to what is wanted."})


def _meta(asked: Asked, index: int) -> str:
    of, text, seed, tier = asked.world, asked.text, asked.seed, asked.tier
    if '"prompts"' in text:
        wanted = _TEXTS_WANTED.search(text)
        prompts = [edited(of, text, seed=seed, index=at, tier=tier) for at in range(int(wanted[1]) if wanted else 1)]
        return json.dumps({"rationale": "Variants by what the request shows.", "prompts": prompts})
    prompt = edited(of, text, seed=seed, index=index, tier=tier)
    if '"prompt"' in text:
        return json.dumps({"rationale": "The rules that the feedback names.", "prompt": prompt})
    laid_out = _laid_out(asked, prompt, "proposed_instruction")
    return f"```\n{prompt}\n```" if laid_out == prompt else laid_out


_ROLES = {"work": _work, "judge": _judge, "meta": _meta}


def _laid_out(asked: Asked, value: str, name: str) -> str:
    """`value` as the field `name` (else the last one) where the request asks for marked fields, as dspy's do."""
    wanted = _FIELDS_WANTED.search(asked.system)
    if wanted is None:
        return value
    fields = _FIELD.findall(wanted[1])
    held = name if name in fields else fields[-1]
    parts = [f"[[ ## {field} ## ]]\n{value if field == held else 'As it says.'}" for field in fields]
    return "\n\n".join([*parts, "[[ ## completed ## ]]"])


def _wire(model: str, asked: Asked, texts: Sequence[str]) -> dict[str, Any]:
    read, written = len(asked.text) // 4 + 1, sum(map(len, texts)) // 4 + 1
    return {
        "id": "chatcmpl-simulated",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [
            {"index": at, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            for at, text in enumerate(texts)
        ],
        "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
    }


async def _serve_one(request: web.Request) -> web.Response:
    try:
        return web.json_response(completion(await request.json()))
    except (Unanswerable, ValueError, TypeError, AttributeError) as error:
        told = str(error) if isinstance(error, Unanswerable) else "the body is not that of a chat completion"
        return web.json_response({"error": {"message": told, "type": "invalid_request_error"}}, status=400)


def application() -> web.Application:
    app = web.Application(client_max_size=16 * 1024 * 1024)
    app.router.add_post("/v1/chat/completions", _serve_one)
    return app


async def serve(port: int) -> None:
    """Until SIGINT or SIGTERM; prints its URL once it listens."""
    runner = web.AppRunner(application(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()


def write_notes(of: World, count: int) -> None:
    """The world's first notes as CSV with the columns input and expected, to standard output."""
    rows = csv.writer(sys.stdout)
    rows.writerow(("input", "expected"))
    rows.writerows((of.note(number), as_text(of.wanted(number))) for number in range(count))


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.simulated", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--notes", type=int, metavar="COUNT", help="write so many notes as CSV instead of serving")
    parser.add_argument("--landscape", choices=sorted(LANDSCAPES), default="fields", help="whose notes")
    parser.add_argument("--seed", type=int, default=0, help="whose notes")
    given = parser.parse_args(argv)
    if given.notes is not None:
        write_notes(world(given.landscape, given.seed), given.notes)
    else:
        asyncio.run(serve(given.port))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
