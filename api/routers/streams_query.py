"""What the query of a list, a summary or the analytics of streams asks for, and in which form a stream is answered."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Query, Request

from api.core.authentication import Caller
from api.routers.jobs_query import References, reference_texts
from engine.errors import InvalidField
from engine.records.streams import StreamQuery

_INSTANT = "An ISO 8601 instant, UTC where it has no zone; of the creation, included."

Since = Annotated[str | None, Query(alias="from", description=_INSTANT)]
Until = Annotated[str | None, Query(alias="to", description=_INSTANT)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """A query as it came; `to_query` judges what validation cannot, after authentication."""

    since: str | None
    until: str | None
    references: list[tuple[str, str]]
    model: str | None = None
    status: str | None = None

    def to_query(self, caller: Caller) -> StreamQuery:
        """Raises InvalidField."""
        return StreamQuery(
            client_id=caller.visible_to,
            model=self.model,
            status=self.status,
            since=_instant("from", self.since),
            until=_instant("to", self.until),
            references=reference_texts(self.references),
        )


def _instant(field: str, text: str | None) -> datetime | None:
    """A plus sign that came as it is stands for a blank in a query."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidField(field, "not an ISO 8601 instant, such as 2026-01-31T12:00:00Z") from error


async def _list_filters(
    *,
    references: References,
    since: Since = None,
    until: Until = None,
    model: str | None = None,
    status: Annotated[str | None, Query(description="streaming, completed or error")] = None,
) -> Filters:
    return Filters(since=since, until=until, model=model, status=status, references=references)


async def _range(*, references: References, since: Since = None, until: Until = None) -> Filters:
    return Filters(since=since, until=until, references=references)


async def _wants_events(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "").lower()


ListFilters = Annotated[Filters, Depends(_list_filters)]
RangeFilters = Annotated[Filters, Depends(_range)]
WantsEvents = Annotated[bool, Depends(_wants_events)]
