"""Evaluators: named, versioned sets of metrics, never changed once they are made."""

from dataclasses import dataclass

from engine.evaluation.values import Metric
from engine.metadata import Metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    """`metrics` have distinct names."""

    id: str
    client_id: str
    name: str
    version: int
    metrics: tuple[Metric, ...]
    metadata: Metadata
    description: str | None = None
    revision: int = 0
