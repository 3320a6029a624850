"""The port that tells consumers what is worth claiming now."""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from engine.jobs.job import Job


class Rooms(Protocol):
    """What models and purses have room for. Asked before each claim, from any thread; answers at once."""

    def caps(self) -> Mapping[str, int]:
        """By the names of models: how many of their jobs to claim at most. Models not named are not restricted."""
        ...

    def claimed(self, jobs: Sequence[Job], caps: Mapping[str, int]) -> None:
        """These were claimed here under `caps`, and will make their calls soon."""
        ...

    def look_again(self) -> float:
        """Seconds after which there may be more room than `caps` said; infinite where a signal tells."""
        ...

    def shut_clients(self) -> frozenset[str]:
        """Clients whose jobs are to wait."""
        ...

    def shut_worker(self, worker_id: str) -> bool:
        """Whether a worker is to claim nothing."""
        ...


class Unrestricted:
    """Implements Rooms: room for everything."""

    def caps(self) -> Mapping[str, int]:
        return {}

    def claimed(self, jobs: Sequence[Job], caps: Mapping[str, int]) -> None:
        """Of no interest."""

    def look_again(self) -> float:
        return math.inf

    def shut_clients(self) -> frozenset[str]:
        return frozenset()

    def shut_worker(self, worker_id: str) -> bool:  # noqa: ARG002 - the port's
        return False
