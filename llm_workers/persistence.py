"""Further steps of an attempt, tried again within it."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from engine.errors import MetasyncError
from engine.jobs.retry import is_transient
from engine.llm import ModelPaused, ProviderError, RateLimited
from utilities.backoff import full_jitter

T = TypeVar("T")

_FIRST_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(minutes=1)


class Persistence:
    """Tries a further step again within one attempt of its job: the answer before it has been paid for already.

    Transient failures and rate limits are waited for, at most three tries and a minute each; then the error stands.
    While the model takes no call nothing is tried: that is waited for without end, unless it is to last for over a
    minute; the caller's deadline bounds it.
    """

    def __init__(
        self, rng: random.Random, pause: Callable[[float], Awaitable[object]] = asyncio.sleep, tries: int = 3
    ) -> None:
        self._rng = rng
        self._pause = pause
        self._tries = tries

    async def run(self, attempt: Callable[[int], Awaitable[T]]) -> T:
        """`attempt` gets the number of the try, from 1."""
        number = 1
        while True:
            try:
                return await attempt(number)
            except MetasyncError as error:
                tried = not isinstance(error, ModelPaused)
                wait = None if tried and number >= self._tries else self._wait(error, number)
                if wait is None:
                    raise
            number += tried
            await self._pause(wait.total_seconds())

    def _wait(self, error: MetasyncError, number: int) -> timedelta | None:
        if not (is_transient(error) or isinstance(error, RateLimited)):
            return None
        wait = full_jitter(number, base=_FIRST_PAUSE, cap=_LONGEST_PAUSE, rng=self._rng)
        announced = error.retry_after if isinstance(error, ProviderError) else None
        wait = wait if announced is None else max(wait, announced)
        return wait if wait <= _LONGEST_PAUSE else None
