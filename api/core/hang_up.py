"""Whether a request's caller is still there."""

from fastapi import Request


async def hung_up(request: Request) -> None:
    """Returns when the connection is gone. For the time after the body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        continue
