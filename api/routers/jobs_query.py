"""What the query of a list or a summary asks for, and what else requests about jobs carry."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Query, Request

from api.core.authentication import Caller
from api.services.idempotency import RequestKey, fingerprint
from api.services.job_drafts import Maker
from api.services.job_edits import Editor
from api.services.references import User
from engine.errors import InvalidField
from engine.jobs.queue import JobQuery
from engine.jobs.references import filter_texts
from engine.jobs.states import JobState

_PREFIX = "clientReference."
_NO_PRIORITY = 0
MOST_REFERENCES = 100
"""More conditions than anybody needs, and fewer than a database's own limit."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[!-~][ -~]*$",
        description="Repeating a request with the same key and body within 24 hours gives the first answer again.",
    ),
]


def editor_of(caller: Caller) -> Editor:
    return Editor(caller.by, caller.admin)


def maker_of(caller: Caller) -> Maker:
    """Raises InvalidField where an admin names no owner."""
    return Maker(User(caller.owner(), any_prompt=caller.admin), caller.by)


def key_of(key: str | None, kind: str, caller: Caller, body: bytes) -> RequestKey | None:
    """The request's key, if it has one. Blocks for as long as it takes to read the body."""
    return None if key is None else RequestKey(key, fingerprint(f"{kind} by {caller.by}", body))


def reference_texts(pairs: list[tuple[str, str]]) -> tuple[str, ...]:
    """The texts that all have to match. Raises InvalidField for a field name that nothing can have, or too many."""
    if len(pairs) > MOST_REFERENCES:
        raise InvalidField("clientReference", f"more than {MOST_REFERENCES} filters")
    return tuple(dict.fromkeys(text for name, value in pairs for text in filter_texts({name: value})))


async def _references(request: Request) -> list[tuple[str, str]]:
    found = request.query_params.multi_items()
    return [(name.removeprefix(_PREFIX), value) for name, value in found if name.startswith(_PREFIX)]


References = Annotated[list[tuple[str, str]], Depends(_references)]
"""The `clientReference.<field>=value` parameters, as they came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """A query as it came; `to_query` judges what validation cannot, after authentication."""

    references: list[tuple[str, str]]
    status: JobState | None = None
    operation: str | None = None
    model: str | None = None
    priority: int | None = None
    client_job_id: str | None = None

    def to_query(self, caller: Caller) -> JobQuery:
        """Raises InvalidField."""
        priority = self.priority
        if priority is not None and not 1 <= priority <= 1000:
            priority = _NO_PRIORITY
        return JobQuery(
            client_id=caller.visible_to,
            status=self.status,
            operation=self.operation,
            model=self.model,
            priority=priority,
            client_job_id=self.client_job_id,
            references=reference_texts(self.references),
        )


async def _list_filters(
    *,
    references: References,
    job_id: Annotated[str | None, Query(alias="jobId", description="The client's own `id`.")] = None,
    status: JobState | None = None,
    operation: str | None = None,
    model: str | None = None,
    priority: int | None = None,
) -> Filters:
    return Filters(
        references=references,
        status=status,
        operation=operation,
        model=model,
        priority=priority,
        client_job_id=job_id,
    )


async def _summary_filters(
    *,
    references: References,
    operation: str | None = None,
    model: str | None = None,
    client_job_id: Annotated[str | None, Query(alias="id", description="The client's own `id`.")] = None,
) -> Filters:
    return Filters(references=references, operation=operation, model=model, client_job_id=client_job_id)


ListFilters = Annotated[Filters, Depends(_list_filters)]
SummaryFilters = Annotated[Filters, Depends(_summary_filters)]
