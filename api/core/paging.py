"""How every list is cut: `limit`, `skip` and `order`."""

from typing import Annotated, Literal

from fastapi import Depends, Query

from engine.jobs.queue import Page

DEFAULT_LIMIT = 1000
HIGHEST_LIMIT = 10_000
HIGHEST_SKIP = 2**31 - 1


async def _page(
    limit: Annotated[int | None, Query(ge=1, le=HIGHEST_LIMIT, description="How many at most; 1000 if absent.")] = None,
    skip: Annotated[int, Query(ge=0, le=HIGHEST_SKIP, description="How many to leave out.")] = 0,
    order: Annotated[Literal["asc", "desc"], Query(description="In insertion order, or the newest first.")] = "asc",
) -> Page:
    return Page(limit=limit or DEFAULT_LIMIT, skip=skip, newest_first=order == "desc")


Paged = Annotated[Page, Depends(_page)]
