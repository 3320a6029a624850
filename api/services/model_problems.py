"""Which of the models that a job may come to do not exist."""

from collections.abc import Iterable, Iterator, Sequence

from engine.jobs.queue import Page
from engine.records.store import RecordStore, Where
from engine.records.values import ROUTER, Model

_MOST_NAMES = 100
_MOST_MODELS = 10_000


def model_problems(names: Iterable[str], stored: RecordStore[Model]) -> list[str]:
    """Sentences about names that no live model has: `names` themselves, and the fallbacks and targets they lead to.

    One query for each step away from `names`; at most 100 names are looked up.
    """
    told = {name: f"model {name} does not exist any more" for name in names}
    known: dict[str, Model] = {}
    missing: list[str] = []
    waiting = list(told)[:_MOST_NAMES]
    while waiting:
        found = _oldest(stored, waiting)
        known |= found
        missing += [name for name in waiting if name not in found]
        for kind, name, model in _led_to(found.values()):
            told.setdefault(name, f"model {name}, a {kind} of {model.name}, does not exist any more and is left out")
        asked = known.keys() | set(missing)
        waiting = [name for name in told if name not in asked][: _MOST_NAMES - len(asked)]
    return [*(told[name] for name in missing), *_without_targets(known.values(), set(missing))]


def _oldest(stored: RecordStore[Model], names: Sequence[str]) -> dict[str, Model]:
    models = stored.find(Where(equals={"name": names}), Page(limit=_MOST_MODELS))
    return {model.name: model for model in reversed(models)}


def _led_to(models: Iterable[Model]) -> Iterator[tuple[str, str, Model]]:
    for model in models:
        yield from (("target", target.model, model) for target in model.targets)
        yield from (("fallback", name, model) for name in model.fallbacks)


def _without_targets(models: Iterable[Model], missing: set[str]) -> list[str]:
    routers = [model for model in models if model.sdk == ROUTER]
    return [
        f"router {router.name} has no target left"
        for router in routers
        if missing.issuperset(target.model for target in router.targets)
    ]
