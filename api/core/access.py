"""What a route is given: the services, the way to them, and who calls."""

from collections.abc import Callable
from typing import Annotated, ParamSpec, TypeVar

from fastapi import Depends, Request

from api.core.authentication import Caller, credentials_of
from api.middleware.access_log import CALLER
from api.services.wiring import Services

P = ParamSpec("P")
T = TypeVar("T")


class Access:
    """One request's access. `caller` authenticates when it is first asked, so that a route's validation goes first."""

    def __init__(self, request: Request) -> None:
        self.services: Services = request.app.state.services
        self._request = request

    async def caller(self) -> Caller:
        """The administrator or a client; raises Unauthenticated."""
        found: Caller | None = getattr(self._request.state, "caller", None)
        if found is None:
            credentials = credentials_of(self._request.scope["headers"])
            found = await self.services.authenticator.either(credentials)
            self._request.scope[CALLER] = found.by
        return found

    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`function`'s result, from a thread that may wait for the storage."""
        return await self.services.gate(function, *args, **kwargs)


async def _access(request: Request) -> Access:
    return Access(request)


Accessed = Annotated[Access, Depends(_access)]
