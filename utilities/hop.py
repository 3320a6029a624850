"""The one crossing from an event loop to synchronous code."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Hop(Protocol):
    """Runs `function` away from the event loop and answers its result; its exceptions pass through.

    A cancelled await leaves the function running to its end; its result is then dropped.
    """

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...


class ThreadHop:
    """A hop to the threads of an executor."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: function(*args, **kwargs))
