"""How a stream is put on the wire: as plain text, or as server-sent events (WHATWG HTML, server-sent events)."""

from collections.abc import Sequence
from typing import Any

import orjson

from api.middleware.errors import answer_to
from api.services.stream_sums import metrics_of
from engine.errors import MetasyncError
from engine.records.streams import Stream

_DONE = b"data: [DONE]\n\n"


class PlainText:
    """The pieces and nothing else. It has no way to tell of an error but to break off."""

    media_type = "text/plain; charset=utf-8"
    keep_alive = b""

    def piece(self, text: str) -> bytes:
        return text.encode("utf-8", "replace")

    def end(self, _stream: Stream) -> Sequence[bytes]:
        return ()

    def error(self, _error: MetasyncError) -> bytes | None:
        return None


class Events:
    """One JSON object an event: `content`, at last `metrics` and then `[DONE]`, or an `error`."""

    media_type = "text/event-stream; charset=utf-8"
    keep_alive = b": ping\n\n"

    def piece(self, text: str) -> bytes:
        return _event({"content": text.encode("utf-8", "replace").decode()})

    def end(self, stream: Stream) -> Sequence[bytes]:
        return _event({"metrics": metrics_of(stream)}), _DONE

    def error(self, error: MetasyncError) -> bytes | None:
        return _event({"error": answer_to(error).detail or str(error), "code": error.code})


PLAIN = PlainText()


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"
