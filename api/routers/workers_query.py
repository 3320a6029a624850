"""What the query of the workers' summary asks for."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query

from api.routers.jobs_query import References, reference_texts
from api.services.workers import WorkerQuery


@dataclass(frozen=True, slots=True)
class Filters:
    """A query as it came; `to_query` judges what validation cannot, after authentication."""

    references: list[tuple[str, str]]
    model: str | None
    operation: str | None

    def to_query(self) -> WorkerQuery:
        """Raises InvalidField."""
        references = reference_texts(self.references)
        return WorkerQuery(model_filter=self.model, operation_filter=self.operation, references=references)


async def _filters(
    references: References,
    model: Annotated[str | None, Query(alias="modelFilter")] = None,
    operation: Annotated[str | None, Query(alias="operationFilter")] = None,
) -> Filters:
    return Filters(references, model, operation)


SummaryFilters = Annotated[Filters, Depends(_filters)]
