"""The fake provider's HTTP server, in a thread of its own or as the only thing of a process."""

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import orjson
from aiohttp import web

from tests.support.fake_provider.answering import Answering, Gate, reset, send_along
from tests.support.fake_provider.meter import meter_of
from tests.support.fake_provider.script import Rule, Script, rule_of
from tests.support.fake_provider.seen import Seen
from tests.support.fake_provider.wire.anthropic import AnthropicWire
from tests.support.fake_provider.wire.azure import AzureOpenAiWire, ChatCompletionsWire
from tests.support.fake_provider.wire.compatible import COMPATIBLE_WIRES
from tests.support.fake_provider.wire.embeddings import EmbeddingsWire, GeminiEmbeddingsWire
from tests.support.fake_provider.wire.gemini import GeminiWire
from tests.support.fake_provider.wire.openai import OpenAiWire
from tests.support.fake_provider.wire.port import Asked, Wire

WIRES: tuple[Callable[[], Wire], ...] = (
    OpenAiWire,
    AzureOpenAiWire,
    ChatCompletionsWire,
    AnthropicWire,
    GeminiWire,
    *COMPATIBLE_WIRES,
    EmbeddingsWire,
    GeminiEmbeddingsWire,
)
PLAIN_ANSWER = '{"answer": "ok", "score": 1}'
_MODELS = ("fake-small", "fake-large")
_LARGEST = 64 * 1024 * 1024


class FakeProvider:
    """`with FakeProvider(latency=0.05) as fake:`; listens on 127.0.0.1. `latency` is in seconds.

    `answer` makes the text of a plain answer; without it every answer is PLAIN_ANSWER. `connections` counts those it
    accepted.
    """

    def __init__(self, *, port: int = 0, latency: float = 0.0, answer: Callable[[Asked], str] | None = None) -> None:
        self.seen = Seen()
        self.connections = 0
        self.script = Script()
        self._port = port
        self._latency = latency
        self._answer = answer or _plain
        self._resets = 0
        self._answering: list[Answering] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._gate: Gate | None = None
        self._runner: web.ServerRunner | None = None
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def openai_url(self) -> str:
        """The base URL for OpenAI clients; the others take `url`, ChatCompletionsClient `url` + /models."""
        return f"{self.url}/v1"

    def add(self, *rules: Rule) -> None:
        self.script.add(*rules)

    def hold(self) -> None:
        """From now on calls are read and counted and wait for `release`."""
        self._on_loop(self._held)

    def release(self) -> None:
        self._on_loop(self._released)

    def reset_next_connections(self, count: int) -> None:
        """The next `count` connections are reset as they are accepted, before a request was read."""
        self._on_loop(self._reset_next, count)

    def set_latency(self, seconds: float) -> None:
        self._latency = seconds
        for answering in self._answering:
            answering.latency = seconds

    def __enter__(self) -> "FakeProvider":
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="fake-provider", daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise TimeoutError("the fake provider did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    async def start(self) -> None:
        """On the running loop, for a process that has nothing else to do."""
        self._gate = Gate()
        self._runner = web.AppRunner(
            self._application(self._gate), access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, "127.0.0.1", self._port, backlog=4096)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None and self._runner is not None:
            self._server.close()
            await self._runner.cleanup()

    def _run(self, ready: threading.Event) -> None:
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self.start())
        ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self.stop())
        self._loop.run_until_complete(_finish_tasks())
        self._loop.close()

    def _protocol(self) -> asyncio.BaseProtocol:
        self.connections += 1
        if self._resets > 0:
            self._resets -= 1
            return _Resetting(self.seen)
        if self._runner is None or self._runner.server is None:
            raise RuntimeError("not started")
        return self._runner.server()

    def _application(self, gate: Gate) -> web.Application:
        app = web.Application(client_max_size=_LARGEST)
        app.on_response_prepare.append(send_along)
        for make in WIRES:
            wire = make()
            answering = Answering(wire, self.seen, self.script, gate, text=self._answer, latency=self._latency)
            self._answering.append(answering)
            for path in wire.paths:
                app.router.add_post(path, answering.handle)
        app.router.add_get("/v1/models", _models)
        app.router.add_get("/_seen", self._show_seen)
        app.router.add_post("/_script", self._take_script)
        app.router.add_get("/_meter/{model}", self._show_meter)
        app.router.add_put("/_meter/{model}", self._take_meter)
        app.router.add_post("/_gate", self._take_gate)
        app.router.add_post("/_reset", self._take_reset)
        return app

    async def _show_seen(self, request: web.Request) -> web.Response:
        return _json(self.seen.as_document())

    async def _take_script(self, request: web.Request) -> web.Response:
        """A rule, a list of rules (see script.rule_of), or {"latency": seconds}."""
        given = orjson.loads(await request.read())
        for document in given if isinstance(given, list) else [given]:
            if "latency" in document:
                self.set_latency(float(document["latency"]))
            else:
                self.script.add(rule_of(document))
        return _json({})

    async def _take_meter(self, request: web.Request) -> web.Response:
        """A vendor's limits from now on: {"requests": 60, "tokens": 1000, "seconds": 60, "penalty": 10}."""
        self.script.limit(request.match_info["model"], meter_of(orjson.loads(await request.read())))
        return _json({})

    async def _show_meter(self, request: web.Request) -> web.Response:
        meter = self.script.meter(request.match_info["model"])
        return web.Response(status=404) if meter is None else _json(meter.as_document())

    async def _take_gate(self, request: web.Request) -> web.Response:
        held = orjson.loads(await request.read())["held"]
        (self._held if held else self._released)()
        return _json({})

    async def _take_reset(self, request: web.Request) -> web.Response:
        self.seen.reset()
        self.script.clear()
        self._released()
        return _json({})

    def _held(self) -> None:
        if self._gate is not None:
            self._gate.hold()

    def _released(self) -> None:
        if self._gate is not None:
            self._gate.release()

    def _reset_next(self, count: int) -> None:
        self._resets = count

    def _on_loop(self, function: Callable[..., None], *args: Any) -> None:
        """Runs `function` on the server's loop and waits, so that what follows is sure to meet it."""
        if self._loop is None:
            raise RuntimeError("not started")
        done = threading.Event()

        def run() -> None:
            function(*args)
            done.set()

        self._loop.call_soon_threadsafe(run)
        if not done.wait(10):
            raise TimeoutError("the fake provider's loop does not answer")


class _Resetting(asyncio.Protocol):
    """A connection that is reset before anything was read from it."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        reset(transport)
        self._seen.connection_was_reset()


async def _finish_tasks() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _plain(asked: Asked) -> str:
    return PLAIN_ANSWER


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


async def _models(request: web.Request) -> web.Response:
    data = [{"id": name, "object": "model", "created": 1750000000, "owned_by": "fake"} for name in _MODELS]
    return _json({"object": "list", "data": data})
