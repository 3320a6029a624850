"""Where a model's jobs may go besides the model itself: pure functions over stored models."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from engine.records.values import Model


def leads_to(model: Model) -> tuple[str, ...]:
    """The names that a model's jobs may go to: a router's targets, then the fallbacks."""
    return (*(target.model for target in model.targets), *model.fallbacks)


def loop_through(models: Iterable[Model], changed: Model) -> tuple[str, ...] | None:
    """The shortest way from `changed` back to its name, such as (a, b, a); None where there is none.

    `models` are the stored ones; `changed` takes the place of the one with its id. Models of one name count as one that
    leads wherever any of them does, so that no loop appears when the oldest of them is deleted.
    """
    ways: dict[str, list[str]] = {}
    for model in (*(other for other in models if other.id != changed.id), changed):
        ways.setdefault(model.name, []).extend(leads_to(model))
    before: dict[str, str] = {}
    waiting = deque([changed.name])
    while waiting:
        name = waiting.popleft()
        for following in ways.get(name, ()):
            if following == changed.name:
                return (*_way_to(name, before, changed.name), changed.name)
            if following not in before:
                before[following] = name
                waiting.append(following)
    return None


def _way_to(name: str, before: Mapping[str, str], start: str) -> Sequence[str]:
    way = [name]
    while way[-1] != start:
        way.append(before[way[-1]])
    return way[::-1]
