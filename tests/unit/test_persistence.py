"""How often further steps of an attempt are tried, and what is waited for."""

import asyncio
import random
from datetime import timedelta

import pytest

from engine.errors import MetasyncError
from engine.llm import ModelPaused, PermanentProviderError, RateLimited, TransientProviderError
from llm_workers.persistence import Persistence

TORN = TransientProviderError("torn")


def _paused(seconds: float) -> ModelPaused:
    return ModelPaused("used up", reason="requests", retry_after=timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("failures", "tries"),
    [
        ([TORN] * 2, [1, 2, 3]),
        ([_paused(30.0)] * 50, [1] * 51),
        ([_paused(30.0), TORN, _paused(30.0), TORN], [1, 1, 2, 2, 3]),
    ],
    ids=["failures", "a model that takes no call", "both"],
)
def test_what_is_waited_for(failures: list[MetasyncError], tries: list[int]) -> None:
    """Three tries are made, however often the model took no call meanwhile: no try was made then."""
    assert _outcome(failures) == (tries, "done")


@pytest.mark.parametrize(
    "failures", [[TORN] * 3, [PermanentProviderError("bad")], [_paused(61.0)], [RateLimited("429")] * 3]
)
def test_what_stands(failures: list[MetasyncError]) -> None:
    """The third failure stands, and at once one that is for good or asks for over a minute."""
    assert _outcome(failures)[1] is failures[-1]


def _outcome(failures: list[MetasyncError]) -> tuple[list[int], object]:
    """The numbers of the tries, and what came of them."""
    tries: list[int] = []

    async def attempt(number: int) -> str:
        tries.append(number)
        if len(tries) <= len(failures):
            raise failures[len(tries) - 1]
        return "done"

    async def at_once(_: float) -> None:
        """Waits for nothing."""

    try:
        return tries, asyncio.run(Persistence(random.Random(1), at_once).run(attempt))
    except MetasyncError as error:
        return tries, error
