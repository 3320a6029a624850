"""How deep JSON may be nested."""

from typing import Any

DEEPEST = 200
"""What orjson can write is limited to 254 levels; what surrounds a value needs some of them."""

_BRANCHES = {dict, list}


def too_deep(value: Any) -> bool:
    """Whether parsed JSON has more than DEEPEST levels. As fast as can be for long lists of numbers."""
    level = [value] if type(value) in _BRANCHES else []
    for _ in range(DEEPEST):
        level = [child for branch in level for child in _branches_of(branch)]
        if not level:
            return False
    return True


def may_be_too_deep(text: bytes | str) -> bool:
    """Whether a JSON text has so many brackets at all."""
    if isinstance(text, str):
        return text.count("{") + text.count("[") > DEEPEST
    return text.count(b"{") + text.count(b"[") > DEEPEST


def _branches_of(branch: Any) -> list[Any]:
    children = branch.values() if type(branch) is dict else branch
    return [] if _BRANCHES.isdisjoint(map(type, children)) else [one for one in children if type(one) in _BRANCHES]
