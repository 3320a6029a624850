"""Which search strategies exist: the built-in ones, and plug-ins of the entry-point group `metasync.strategies`."""

import threading
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, cast

from engine.errors import UnknownReference
from llm_optimizer.strategies.guarded import Guarded
from llm_optimizer.strategies.interface import Strategy

GROUP = "metasync.strategies"
DEFAULT = "auto"
_HOME = "llm_optimizer.strategies"
BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "auto": f"{_HOME}.auto:Auto",
        "beam": f"{_HOME}.beam:Beam",
        "combos": f"{_HOME}.combos:Combos",
        "duel": f"{_HOME}.duel:Duel",
        "opro": f"{_HOME}.opro:Opro",
        "refine": f"{_HOME}.refine:Refine",
        "reflect": f"{_HOME}.reflect:Reflect",
    }
)
_METHODS = ("start", "plan", "apply", "done", "best")


def installed() -> Iterable[EntryPoint]:
    return entry_points(group=GROUP)


def built_in(name: str) -> Strategy:
    """One of BUILT_IN, made anew. Raises UnknownReference."""
    if name not in BUILT_IN:
        raise UnknownReference("strategy", name)
    module, _, class_name = BUILT_IN[name].partition(":")
    return cast(Strategy, getattr(import_module(module), class_name)())


class Strategies:
    """Built-in strategies and plug-ins, found on first use. Safe to use from several threads."""

    def __init__(self, discover: Callable[[], Iterable[EntryPoint]] = installed) -> None:
        self._discover = discover
        self._lock = threading.RLock()
        self._plug_ins: dict[str, Callable[[], Strategy]] | None = None
        self._problems: dict[str, str] = {}

    def names(self) -> frozenset[str]:
        return frozenset(BUILT_IN) | frozenset(self._found())

    def problems(self) -> Mapping[str, str]:
        """Plug-ins that cannot be used, by name, and why."""
        self._found()
        return dict(self._problems)

    def get(self, name: str) -> Strategy:
        """Raises UnknownReference for a name that is not registered, InvalidField for a plug-in that cannot be made."""
        plug_in = self._found().get(name)
        return Guarded(name, plug_in) if plug_in is not None else built_in(name)

    def _found(self) -> dict[str, Callable[[], Strategy]]:
        with self._lock:
            if self._plug_ins is None:
                self._plug_ins = {}
                for entry in self._discovered():
                    self._take(entry, self._plug_ins)
            return self._plug_ins

    def _discovered(self) -> list[EntryPoint]:
        try:
            return list(self._discover())
        except Exception as error:  # noqa: BLE001 - the metadata of any installed package may be broken
            self._problems[GROUP] = f"{type(error).__name__}: {error}"[:500]
            return []

    def _take(self, entry: EntryPoint, into: dict[str, Callable[[], Strategy]]) -> None:
        try:
            into[entry.name] = _checked(entry, taken=entry.name in BUILT_IN or entry.name in into)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plug-in may raise whatever it likes
            self._problems[entry.name] = f"{type(error).__name__}: {error}"[:500]


def _checked(entry: EntryPoint, *, taken: bool) -> Callable[[], Strategy]:
    if taken:
        raise ValueError("the name is taken")
    plug_in: Any = entry.load()
    if not all(callable(getattr(plug_in, method, None)) for method in _METHODS):
        raise TypeError("not a strategy class")
    return cast(Callable[[], Strategy], plug_in)
