"""A strategy's parameters: a frozen dataclass whose fields say what is allowed, read from a JSON object."""

import math
from collections.abc import Mapping
from dataclasses import Field, field, fields
from typing import Any, TypeVar

from engine.errors import InvalidField

WHERE = "strategy.parameters"
P = TypeVar("P")


def count(default: int, low: int, high: int) -> Any:
    """A whole number in [low, high]."""
    return field(default=default, metadata={"kind": "count", "low": low, "high": high})


def share(default: float, low: float = 0.0, high: float = 1.0) -> Any:
    """A number in [low, high]."""
    return field(default=default, metadata={"kind": "share", "low": low, "high": high})


def switch(default: bool) -> Any:
    return field(default=default, metadata={"kind": "switch"})


def choice(default: str, *others: str) -> Any:
    return field(default=default, metadata={"kind": "choice", "options": (default, *others)})


def nested() -> Any:
    """An object with parameters of another strategy, which checks them; empty by default."""
    return field(default_factory=dict, metadata={"kind": "nested"})


def read(kind: type[P], values: Mapping[str, Any]) -> P:
    """`values` by their camelCase names, defaults for the rest. Raises InvalidField, which names the parameter."""
    known = {camel(one.name): one for one in fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise InvalidField(f"{WHERE}.{name}", f"unknown; there are {', '.join(sorted(known)) or 'none'}")
    return kind(**{known[name].name: _checked(name, known[name], value) for name, value in values.items()})


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _checked(name: str, one: "Field[Any]", value: Any) -> Any:
    refusal = _CHECKS[one.metadata["kind"]](one.metadata, value)
    if refusal is not None:
        raise InvalidField(f"{WHERE}.{name}", refusal)
    return value


def _count(rule: Mapping[str, Any], value: Any) -> str | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and rule["low"] <= value <= rule["high"]
    return None if fits else f"must be a whole number from {rule['low']} to {rule['high']}"


def _share(rule: Mapping[str, Any], value: Any) -> str | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    fits = is_number and rule["low"] <= value <= rule["high"]
    return None if fits else f"must be a number from {rule['low']:g} to {rule['high']:g}"


def _switch(_rule: Mapping[str, Any], value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _choice(rule: Mapping[str, Any], value: Any) -> str | None:
    return None if value in rule["options"] else f"must be one of {', '.join(rule['options'])}"


def _nested(_rule: Mapping[str, Any], value: Any) -> str | None:
    return None if isinstance(value, Mapping) else "must be an object"


_CHECKS = {"count": _count, "share": _share, "switch": _switch, "choice": _choice, "nested": _nested}
