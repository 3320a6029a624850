"""Whether the service is alive, and whether it can work."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from api.core.gate import Gate
from engine.errors import StorageError
from engine.llm import ProviderRegistry

PING_SECONDS = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Readiness:
    """`provider_problems` tells by name why plug-ins could not be loaded; they do not keep the service from working."""

    database_answers: bool
    provider_problems: Mapping[str, str]


class HealthService:
    """`ping` asks the database for a sign of life and raises StorageError where there is none."""

    def __init__(
        self, ping: Callable[[], object], registry: ProviderRegistry, gate: Gate, seconds: float = PING_SECONDS
    ) -> None:
        self._ping = ping
        self._registry = registry
        self._gate = gate
        self._seconds = seconds

    async def readiness(self) -> Readiness:
        """The answer within the given seconds, also while the database hangs."""
        try:
            await asyncio.wait_for(self._gate(self._ping), self._seconds)
        except (StorageError, TimeoutError) as error:
            log.warning("database_unavailable", reason=str(error) or "no answer in time")
            return Readiness(False, self._registry.problems())
        return Readiness(True, self._registry.problems())
