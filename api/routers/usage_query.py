"""What the query of GET /usage asks for, and in which form."""

from datetime import date, timedelta
from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Query, Request

from api.core.access import Accessed
from api.core.unprocessable import Unprocessable
from engine.usage import ALL_DIMENSIONS, Dimension, UsageQuery

MOST_DAYS = 400


class Format(StrEnum):
    JSON = "json"
    CSV = "csv"


async def _query(
    *,
    access: Accessed,
    first: Annotated[
        date | None, Query(alias="from", description="The first day, of UTC; the first of `to`'s month if absent.")
    ] = None,
    last: Annotated[
        date | None,
        Query(alias="to", description=f"The last day, included; today if absent. At most {MOST_DAYS} days in all."),
    ] = None,
    group_by: Annotated[
        list[Dimension] | None,
        Query(alias="groupBy", max_length=4, description="What items are told apart by, once each; all if absent."),
    ] = None,
    client_id: Annotated[str | None, Query(alias="clientId", description="For admins; a client sees its own.")] = None,
    model: str | None = None,
    operation: str | None = None,
) -> UsageQuery:
    """Raises Unprocessable for a range that ends before it begins, or is too long."""
    until = last or access.services.clock.now().date()
    since = first or until.replace(day=1)
    _check(since, until)
    return UsageQuery(
        first=since,
        last=until,
        client_id=client_id,
        model=model,
        operation=operation,
        group_by=frozenset(group_by) if group_by else ALL_DIMENSIONS,
    )


def _check(first: date, last: date) -> None:
    if last < first:
        raise Unprocessable(("query", "to"), "to must not be before from", last.isoformat())
    if last - first >= timedelta(days=MOST_DAYS):
        raise Unprocessable(("query", "from"), f"from and to span more than {MOST_DAYS} days", first.isoformat())


async def _format(
    request: Request,
    wanted: Annotated[Format | None, Query(alias="format", description="Goes before the Accept header.")] = None,
) -> Format:
    if wanted is not None:
        return wanted
    accepted = request.headers.get("accept", "").lower()
    return Format.CSV if "text/csv" in accepted and "application/json" not in accepted else Format.JSON


Asked = Annotated[UsageQuery, Depends(_query)]
Formatted = Annotated[Format, Depends(_format)]
