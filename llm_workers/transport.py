"""HTTP to providers: a connection pool per endpoint and event loop, timeouts that say which, calls that can be dropped.

The vendors' SDKs say what is sent; this says how. aiohttp costs a tenth of the CPU of the SDKs' own transport.
"""

import io
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import aiohttp
from yarl import URL

from engine.llm import Timeouts, TransientProviderError
from llm_workers.providers.faults import lost_call
from utilities.clock import Clock, SystemClock

LARGEST_ANSWER = 64 * 1024 * 1024
_LARGEST_PLAIN_BODY = 1024 * 1024
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
# Shorter than the idle time after which vendors close: a call sent into a closing connection is lost.
_KEEP_ALIVE_SECONDS = 15.0
_DNS_SECONDS = 120


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer, whatever its status. Header names are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpStream:
    """An answer whose body is still coming. To be closed; that closes the connection if the body is not at its end."""

    def __init__(self, response: aiohttp.ClientResponse, timeouts: Timeouts) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._timeouts = timeouts

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises ProviderError where it breaks off or takes too long."""
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, OSError, ValueError) as error:
            host = self._response.url.host or ""
            raise lost_call(error, host, self._timeouts, answering=True) from error

    async def whole(self) -> HttpAnswer:
        """The rest of the body at once. Raises ProviderError as `pieces` does, and where it is too long."""
        received = bytearray()
        async for piece in self.pieces():
            received += piece
            _bound(len(received), self.status)
        return HttpAnswer(self.status, self.headers, bytes(received))

    def close(self) -> None:
        self._response.release()


class Transport:
    """Bound to the event loop it is first used on. Does not limit how many calls run at once: callers do."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self._session: aiohttp.ClientSession | None = None
        self._limits: dict[Timeouts, aiohttp.ClientTimeout] = {}

    async def post(self, url: URL, headers: Mapping[str, str], body: bytes, timeouts: Timeouts) -> HttpAnswer:
        """One request, no redirects followed. Raises ProviderError where no whole answer came.

        A cancelled call closes its connection, so that the vendor sees that nobody waits any more.
        """
        answering = False
        try:
            async with self._open_session().post(
                url, data=_payload(body), headers=headers, timeout=self._limit(timeouts), allow_redirects=False
            ) as response:
                answering = True
                return HttpAnswer(response.status, response.headers, await _whole(response))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise lost_call(error, url.host or "", timeouts, answering=answering) from error

    async def open(self, url: URL, headers: Mapping[str, str], body: bytes, timeouts: Timeouts) -> HttpStream:
        """As `post`, but done when the answer's head has come."""
        try:
            response = await self._open_session().post(
                url, data=_payload(body), headers=headers, timeout=self._limit(timeouts), allow_redirects=False
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise lost_call(error, url.host or "", timeouts, answering=False) from error
        return HttpStream(response, timeouts)

    async def aclose(self) -> None:
        """Closes all connections. Repeating is harmless."""
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS, ttl_dns_cache=_DNS_SECONDS
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                # Looking for a proxy costs as much as the rest of a call, so only where one is configured.
                trust_env=any(os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXY_VARIABLES),
            )
        return self._session

    def _limit(self, timeouts: Timeouts) -> aiohttp.ClientTimeout:
        limit = self._limits.get(timeouts)
        if limit is None:
            limit = aiohttp.ClientTimeout(
                total=timeouts.total, connect=timeouts.connect, sock_read=timeouts.read, ceil_threshold=5
            )
            self._limits[timeouts] = limit
        return limit


def _payload(body: bytes) -> bytes | io.BytesIO:
    """A large body in pieces: as one write it would hold up every other call of the loop."""
    return body if len(body) < _LARGEST_PLAIN_BODY else io.BytesIO(body)


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    size = response.content_length
    if size is not None and size <= LARGEST_ANSWER and "Content-Encoding" not in response.headers:
        return await response.read()
    received = bytearray()
    async for piece in response.content.iter_any():
        received += piece
        _bound(len(received), response.status)
    return bytes(received)


def _bound(size: int, status: int) -> None:
    if size > LARGEST_ANSWER:
        raise TransientProviderError(f"the answer is longer than {LARGEST_ANSWER} bytes", status=status)
