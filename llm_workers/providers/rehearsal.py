"""What a vendor's SDK would send: its own client makes the call, and a transport that goes nowhere writes it down.

So URL, authentication, headers and the shape of a body come from the SDK through its public interface, while the hot
path sends them by a cheaper transport and an endpoint's rehearsal is paid for once.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from yarl import URL

from engine.llm import CompletionRequest, Endpoint

if TYPE_CHECKING:
    import httpx2

_MOST_ENDPOINTS = 256
# Others come from environment variables that SDKs read (organizations, custom headers): they are meant for the vendor's
# own address and may be secrets, while a model's endpoint may be anybody's.
_KEPT_HEADERS = re.compile(
    r"accept|content-type|user-agent|authorization|(x-)?api-key|x-goog-api-.*|anthropic-version|x-stainless-.*"
)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A request as the SDK made it. `headers` hold the key."""

    url: URL
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def without(self, header: str) -> "Rehearsal":
        return Rehearsal(self.url, {name: value for name, value in self.headers.items() if name != header}, self.body)


def rehearse(call: "Callable[[httpx2.Client], object]") -> Rehearsal:
    """`call` gets an HTTP client for the SDK and makes one request with it. Imports the SDK: not on an event loop."""
    import httpx2  # noqa: PLC0415 - slow to import

    requests: list[httpx2.Request] = []

    def written_down(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(200, json={})

    with httpx2.Client(transport=httpx2.MockTransport(written_down), trust_env=False) as client:
        call(client)
    request = requests[-1]
    headers = {name: value for name, value in request.headers.items() if _KEPT_HEADERS.fullmatch(name.lower())}
    return Rehearsal(URL(str(request.url), encoded=True), headers, request.content)


class Rehearsals:
    """The latest 256 endpoints' rehearsals, each made once, in a thread. For one event loop."""

    def __init__(self, make: Callable[[CompletionRequest], Rehearsal]) -> None:
        self._make = make
        self._known: OrderedDict[Endpoint, asyncio.Future[Rehearsal]] = OrderedDict()

    async def of(self, request: CompletionRequest) -> Rehearsal:
        """Raises what `make` raises, and then tries again the next time."""
        pending = self._known.get(request.endpoint)
        if pending is not None and pending.done():
            return pending.result()
        if pending is None:
            pending = asyncio.ensure_future(asyncio.to_thread(self._make, request))
            self._known[request.endpoint] = pending
            pending.add_done_callback(lambda made: self._keep(request.endpoint, made))
        return await asyncio.shield(pending)

    def _keep(self, endpoint: Endpoint, made: "asyncio.Future[Rehearsal]") -> None:
        if made.cancelled() or made.exception() is not None:
            self._known.pop(endpoint, None)
        while len(self._known) > _MOST_ENDPOINTS:
            self._known.popitem(last=False)
