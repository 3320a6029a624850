"""What calls have used and cost, for who may know."""

from dataclasses import dataclass

from engine.jobs.queue import Page
from engine.usage import UsageQuery, UsageRow, UsageStore, totals_by_currency


@dataclass(frozen=True, slots=True, kw_only=True)
class UsagePage:
    """`rows` is the page; `total` counts all rows, `totals` adds all of them up, one row a currency."""

    query: UsageQuery
    rows: list[UsageRow]
    total: int
    totals: list[UsageRow]


class UsageService:
    """Synchronous."""

    def __init__(self, store: UsageStore) -> None:
        self._store = store

    def page(self, query: UsageQuery, visible_to: str | None, page: Page) -> UsagePage:
        """`visible_to` is the client who asks, and sees its own alone; None: an administrator."""
        if visible_to is not None and query.client_id not in (None, visible_to):
            return UsagePage(query=query, rows=[], total=0, totals=[])
        rows = self._store.rows(query if visible_to is None else query.of_client(visible_to))
        ordered = rows[::-1] if page.newest_first else rows
        return UsagePage(
            query=query,
            rows=ordered[page.skip : page.skip + page.limit],
            total=len(rows),
            totals=totals_by_currency(rows),
        )
