"""A storage in which the n-th operation goes wrong: faults are injected through the port, on any back-end."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from engine.errors import StorageUnavailable
from engine.records.store import Storage

_DELAY_AT_MOST = 0.3


class Fault(StrEnum):
    """What happens to the operation that is hit.

    `before`: it is not done, and its caller is told that the database is away. `after`: it is done, and its caller is
    told the same. `repeat`: it is done twice. `delay`: it is done only after another operation has overtaken it, or
    after a bounded wait where there is none. `freeze`: its process stands still before it until `meanwhile` is over.
    """

    BEFORE = "before"
    AFTER = "after"
    REPEAT = "repeat"
    DELAY = "delay"
    FREEZE = "freeze"


PORTS = (
    *("jobs", "clients", "models", "prompts", "prompt_flows", "workers", "shared", "usage", "streams", "runs"),
    *("files", "contents", "batches", "run_parts", "datasets", "dataset_parts"),
    *("evaluators", "evaluations", "evaluation_parts"),
)


@dataclass(slots=True)
class Plan:
    """Counts the operations of a storage, and spoils number `hit` (from 1) and, with `until`, those up to it."""

    fault: Fault | None = None
    hit: int = 0
    until: int = 0
    meanwhile: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        self.until = max(self.until, self.hit)


class Faulty:
    """A Storage around another one. `count` is how many operations it has seen, `log` their names in order."""

    def __init__(self, inner: Storage, plan: Plan) -> None:
        self.count = 0
        self.log: list[str] = []
        self._at: list[float] = []
        self._inner = inner
        self._plan = plan
        self._lock = threading.Lock()
        self._overtaken = threading.Event()
        for name in PORTS:
            setattr(self, name, _Port(getattr(inner, name), name, self))
        self.ping = inner.ping
        self.server_time = inner.server_time
        self.close = inner.close

    def instants(self, name: str) -> list[float]:
        """When, on the steady clock, the operations of that name were asked for."""
        return [at for at, logged in zip(self._at, self.log, strict=False) if logged == name]

    def run(self, name: str, operation: Callable[[], Any]) -> Any:
        """Do one operation as the plan has it."""
        with self._lock:
            self.count += 1
            self.log.append(name)
            self._at.append(time.monotonic())
            struck = self._plan.fault is not None and self._plan.hit <= self.count <= self._plan.until
        if not struck:
            try:
                return operation()
            finally:
                self._overtaken.set()
        return self._spoiled(operation)

    def _spoiled(self, operation: Callable[[], Any]) -> Any:
        if self._plan.fault is Fault.BEFORE:
            raise StorageUnavailable("injected: the operation was not done")
        if self._plan.fault is Fault.DELAY:
            self._overtaken.clear()
            self._overtaken.wait(_DELAY_AT_MOST)
            return operation()
        if self._plan.fault is Fault.FREEZE:
            self._plan.meanwhile()
            return operation()
        answer = operation()
        if self._plan.fault is Fault.AFTER:
            raise StorageUnavailable("injected: the operation was done, its answer lost")
        return operation() if self._plan.fault is Fault.REPEAT else answer


class _Port:
    """One of a storage's ports, each method under the plan."""

    def __init__(self, inner: Any, name: str, owner: Faulty) -> None:
        self._inner = inner
        self._name = name
        self._owner = owner

    def __getattr__(self, method: str) -> Callable[..., Any]:
        call = getattr(self._inner, method)

        def spoiled(*args: Any, **kwargs: Any) -> Any:
            return self._owner.run(f"{self._name}.{method}", lambda: call(*args, **kwargs))

        return spoiled
