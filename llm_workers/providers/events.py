"""Server-sent events, as vendors stream their answers (WHATWG HTML, section 9.2): the data of each, and their sum."""

from collections.abc import AsyncIterator
from typing import Protocol

from engine.llm import JsonObject, Piece, TransientProviderError

_LARGEST_EVENT = 8 * 1024 * 1024
END_MARK = b"[DONE]"


class Fold(Protocol):
    """Adds a vendor's events up."""

    @property
    def ended(self) -> bool:
        """The event that ends an answer has come."""
        ...

    def feed(self, event: JsonObject) -> Piece | None:
        """The piece in an event, which may be empty. Raises KeyError and the like for a strange shape."""
        ...

    def document(self, text: str) -> JsonObject:
        """What the vendor would have answered without streaming, `text` being all pieces.

        For a chat it has OpenAI's shape, whoever the vendor.
        """
        ...


async def event_data(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each event, without comments, names and OpenAI's end mark; an event that is cut off is none."""
    data: list[bytes] = []
    async for line in _lines(pieces):
        if line.startswith(b"data:"):
            data.append(line[5:].strip())
        elif not line and data:
            whole, data = b"\n".join(data), []
            if whole != END_MARK:
                yield whole


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > _LARGEST_EVENT:
            raise TransientProviderError(f"an event of the stream is longer than {_LARGEST_EVENT} bytes", status=200)
        for line in lines:
            yield line.rstrip(b"\r")
