"""The fake provider for benchmarks: one fixed answer, as fast as Python sends it, so that it is not what is measured.

It looks at nothing but a request's path, which tells whose answer is wanted, its length, and whether it asks OpenAI's
endpoint for a stream: of that the first piece comes at once, and what is late is the rest.
`python -m tests.support.fake_provider.fixed [--latency ms]`.
"""

import argparse
import asyncio
import json
import re
import signal
import time
from array import array
from typing import Any

from llm_workers.loops import new_event_loop

TEXT = '{"answer": "ok", "score": 1}'
_COMPLETION = {
    "id": "chatcmpl-fixed",
    "object": "chat.completion",
    "created": 1750000000,
    "model": "fake",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30},
}
_MESSAGE = {
    "id": "msg_fixed",
    "type": "message",
    "role": "assistant",
    "model": "fake",
    "content": [{"type": "text", "text": TEXT}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 20, "output_tokens": 10},
}
_GENERATED = {
    "candidates": [{"content": {"parts": [{"text": TEXT}], "role": "model"}, "index": 0, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 20, "candidatesTokenCount": 10, "totalTokenCount": 30},
    "modelVersion": "fake",
    "responseId": "fixed",
}
_STREAMED = re.compile(rb'"stream": ?true')


def _http(document: Any) -> bytes:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _stream() -> tuple[bytes, bytes]:
    """OpenAI's answer in pieces: up to the first one, and the rest."""
    chunk = {"id": "chatcmpl-fixed", "object": "chat.completion.chunk", "created": 1750000000, "model": "fake"}
    deltas = [{"role": "assistant", "content": TEXT[:4]}, *({"content": piece} for piece in TEXT[4:].split(" "))]
    chunks = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    chunks.append({**chunk, "choices": [], "usage": _COMPLETION["usage"]})
    frames = [f"data: {json.dumps(each)}\n\n".encode() for each in chunks]
    body = b"".join(frames) + b"data: [DONE]\n\n"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return head + frames[0], body[len(frames[0]) :]


class FixedAnswers:
    """What all connections share. `arrivals` are time.monotonic() of each call since the last reset."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.in_flight = 0
        self.arrivals = array("d")
        self._answer = _http(_COMPLETION)
        self._stream = _stream()
        self._others = {b"/v1/messages": _http(_MESSAGE), b":generateContent": _http(_GENERATED)}

    def received(self, connection: "_Connection", head: bytes, body: bytes) -> None:
        if head.startswith(b"GET /_seen"):
            connection.send(_http({"arrivals": self.arrivals.tolist(), "in_flight": self.in_flight}))
        elif head.startswith(b"GET /_count"):
            connection.send(_http({"total": len(self.arrivals), "in_flight": self.in_flight}))
        elif head.startswith(b"POST /_reset"):
            self.arrivals = array("d")
            self.latency = json.loads(body)["latency"]
            connection.send(_http({}))
        else:
            self._called(connection, self._answer_to(head), body)

    def _answer_to(self, head: bytes) -> bytes:
        path = head[: head.find(b"\r\n")].split(b" ")[1].partition(b"?")[0]
        return next((answer for end, answer in self._others.items() if path.endswith(end)), self._answer)

    def _called(self, connection: "_Connection", answer: bytes, asked: bytes) -> None:
        self.arrivals.append(time.monotonic())
        if answer is self._answer and _STREAMED.search(asked):
            first, answer = self._stream
            connection.send(first)
        if self.latency:
            self.in_flight += 1
            asyncio.get_running_loop().call_later(self.latency, self._late, connection, answer)
        else:
            connection.send(answer)

    def _late(self, connection: "_Connection", answer: bytes) -> None:
        self.in_flight -= 1
        connection.send(answer)


class _Connection(asyncio.Protocol):
    def __init__(self, answers: FixedAnswers) -> None:
        self._answers = answers
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head, whole = self._received[:end], end + 4 + _length(self._received[:end])
            if len(self._received) < whole:
                return
            body, self._received = self._received[end + 4 : whole], self._received[whole:]
            self._answers.received(self, head, body)

    def send(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else 0


async def _serve(latency: float) -> None:
    answers = FixedAnswers(latency)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(answers), "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An LLM provider on 127.0.0.1 that always answers the same.")
    parser.add_argument("--latency", type=float, default=0.0, help="milliseconds until an answer")
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(parser.parse_args().latency / 1000))
