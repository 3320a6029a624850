"""One call from request to answer, or to whatever its fault makes of it."""

import asyncio
import email.utils
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from tests.support.fake_provider.faults import Fault
from tests.support.fake_provider.script import Script
from tests.support.fake_provider.seen import Seen
from tests.support.fake_provider.wire.port import Asked, Reply, Wire, reply_for

SENT_ALONG = web.RequestKey("sent_along", dict[str, str])
_HTML = "<html><body>gateway error</body></html>"
_ERRORS = frozenset({"rate_limit", "quota", "status", "key"})


class ScriptedReset(Exception):
    """The connection was reset on purpose: nothing more can be sent."""


class Gate:
    """Holds answers back until released. Only for the server's own loop."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def passed(self) -> None:
        await self._open.wait()


class Answering:
    """Answers calls of one wire format. `text` makes a plain answer of a request."""

    def __init__(
        self, wire: Wire, seen: Seen, script: Script, gate: Gate, *, text: Callable[[Asked], str], latency: float
    ) -> None:
        self._wire, self._seen, self._script, self._gate = wire, seen, script, gate
        self._text = text
        self.latency = latency

    async def handle(self, request: web.Request) -> web.StreamResponse:
        asked = self._wire.read(request, orjson.loads(await request.read()))
        call = self._seen.began(asked, self._wire.name)
        fault = self._script.fault_for(asked.model, f"{asked.system}\n{asked.user}", call.arrived)
        request[SENT_ALONG] = fault.headers
        try:
            response = await self._respond(request, asked, fault)
        except ScriptedReset:
            self._seen.ended(call, "reset")
            return web.Response()
        except (asyncio.CancelledError, ConnectionError):
            self._seen.ended(call, "hung_up")
            raise
        outcome = "answered" if response.status == 200 else "error"
        self._seen.ended(call, outcome, response.status)
        return response

    async def _respond(self, request: web.Request, asked: Asked, fault: Fault) -> web.StreamResponse:
        await self._gate.passed()
        wait = fault.number("seconds", 0) if fault.kind == "delay" else self.latency
        if wait:
            await asyncio.sleep(wait)
        refusal = self._refusal(asked, fault)
        if refusal is not None:
            return refusal
        if fault.kind == "hang":
            await asyncio.Event().wait()
        if fault.kind == "reset":
            reset(request.transport)
            raise ScriptedReset
        reply = reply_for(fault, self._text(asked))
        if asked.stream:
            return await self._streamed(request, asked, fault, reply)
        return await self._whole(request, asked, fault, reply)

    def _refusal(self, asked: Asked, fault: Fault) -> web.Response | None:
        if fault.kind in _ERRORS:
            return self._error(asked, fault)
        if asked.key.startswith("wrong"):
            return self._error(asked, Fault("key"))
        objection = self._wire.objection(asked)
        if objection is None:
            return None
        return self._json(400, self._wire.error("request", objection.message, objection.parameter), {})

    def _error(self, asked: Asked, fault: Fault) -> web.Response:
        status = {
            "key": 401,
            "status": fault.count("code", 500),
            "quota": self._wire.quota_status,
        }.get(fault.kind, 429)
        headers = _retry_headers(fault)
        if fault.options.get("html"):
            return web.Response(status=status, text=_HTML, content_type="text/html", headers=headers)
        reason = {"status": "server" if status >= 500 else "request"}.get(fault.kind, fault.kind)
        message = f"Incorrect API key provided: {asked.key}" if reason == "key" else f"scripted {fault.kind}"
        return self._json(status, self._wire.error(reason, message), headers)

    def _json(self, status: int, document: dict[str, Any], headers: dict[str, str]) -> web.Response:
        body = orjson.dumps(document)
        return web.Response(status=status, body=body, content_type="application/json", headers=_with_id(headers))

    async def _whole(self, request: web.Request, asked: Asked, fault: Fault, reply: Reply) -> web.StreamResponse:
        body = orjson.dumps(self._wire.answer(asked, reply))
        if fault.kind == "not_json":
            return web.Response(text=_HTML, content_type="text/html")
        if fault.kind == "belated":
            return self._json(200, {"error": {"code": fault.count("code", 502), "message": "scripted belated"}}, {})
        if fault.kind == "deep":
            levels = fault.count("levels", 300)
            body = body[:-1] + b', "deep": ' + b"[" * levels + b"]" * levels + b"}"
        if fault.kind == "truncated":
            body = body[: len(body) // 2]
        if fault.kind in ("drip", "cut"):
            return await _piecemeal(request, body, fault)
        return web.Response(body=body, content_type="application/json", headers=_with_id({}))

    async def _streamed(self, request: web.Request, asked: Asked, fault: Fault, reply: Reply) -> web.StreamResponse:
        response = web.StreamResponse(headers=_with_id({"Content-Type": "text/event-stream"}))
        await response.prepare(request)
        for number, frame in enumerate(self._wire.frames(asked, reply)):
            if fault.kind == "cut" and number == 2:
                reset(request.transport)
                raise ScriptedReset
            if fault.kind == "drip":
                await asyncio.sleep(fault.number("seconds", 10))
            if fault.kind == "broken_off" and number == 3:
                await response.write(b"data: " + orjson.dumps(self._wire.error("server", "overloaded")) + b"\n\n")
                break
            if fault.kind == "truncated" and number == 3:
                break
            await response.write(frame)
        if fault.kind == "lingers":
            await asyncio.Event().wait()
        await response.write_eof()
        return response


async def send_along(request: web.Request, response: web.StreamResponse) -> None:
    """Adds a fault's headers to an answer that is about to begin."""
    response.headers.update(request.get(SENT_ALONG, {}))


async def _piecemeal(request: web.Request, body: bytes, fault: Fault) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    await response.prepare(request)
    if fault.kind == "cut":
        await response.write(body[: len(body) // 2])
        reset(request.transport)
        raise ScriptedReset
    for start in range(len(body)):
        await response.write(body[start : start + 1])
        await asyncio.sleep(fault.number("seconds", 10))
    await response.write_eof()
    return response


def reset(transport: asyncio.BaseTransport | None) -> None:
    """Closes a connection with RST, so that the peer sees a reset and not an end."""
    if transport is None:
        return
    plain = transport.get_extra_info("socket")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()  # type: ignore[attr-defined]


def _retry_headers(fault: Fault) -> dict[str, str]:
    headers = {}
    if "seconds" in fault.options:
        headers["Retry-After"] = fault.options["seconds"]
    if "ms" in fault.options:
        headers["retry-after-ms"] = fault.options["ms"]
    if "date" in fault.options:
        headers["Retry-After"] = email.utils.formatdate(time.time() + fault.number("date", 1), usegmt=True)
    return headers


def _with_id(headers: dict[str, str]) -> dict[str, str]:
    return {**headers, "x-request-id": "req_fake", "request-id": "req_fake", "apim-request-id": "req_fake"}
