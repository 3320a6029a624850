"""Whether a model's fallbacks and targets can be what they are given as."""

from collections.abc import Collection

from api.core.unprocessable import Unprocessable
from engine.jobs.queue import Page
from engine.records.routes import leads_to, loop_through
from engine.records.store import RecordStore, Where
from engine.records.values import ROUTER, Model

_PAGE = 10_000
_DEPLOYMENT = {
    "endpoint": "endpoint",
    "api_type": "apiType",
    "api_version": "apiVersion",
    "deployment": "deployment",
    "key": "key",
}
"""The fields that are empty in a router alone, and their names on the wire."""

Place = tuple[str | int, ...]


def check_routes(model: Model, given: Collection[str], stored: RecordStore[Model]) -> None:
    """Raises Unprocessable for a router without targets, another model with them or without what a router need not
    have, for names of `given` that no live model has, and for a loop.

    `model` is the whole to be stored, `given` names the fields that are new. Two that close a loop in the same instant
    are not seen: whoever follows the names takes each but once.
    """
    _check_sdk(model, given)
    if not leads_to(model):
        return
    models = _all(stored)
    _check_names(model, given, {model.name, *(other.name for other in models)})
    loop = loop_through(models, model)
    if loop is not None:
        places = (place for place, name in _named(model) if name == loop[1] and place[1] in given)
        message = f"leads back to the model itself: {' → '.join(loop)}"
        raise Unprocessable(next(places, ("body", "name")), message, loop[1])


def _check_sdk(model: Model, given: Collection[str]) -> None:
    place = "targets" if "targets" in given else "sdk"
    if model.sdk == ROUTER:
        if not model.targets:
            raise Unprocessable(("body", "targets"), "a router needs at least one target", [])
        return
    if model.targets:
        shown = [target.model for target in model.targets]
        raise Unprocessable(("body", place), "targets are for models of sdk router alone", shown)
    for name, wire in _DEPLOYMENT.items():
        if not getattr(model, name):
            raise Unprocessable(("body", wire), f"a model of sdk {model.sdk} needs it", "")


def _check_names(model: Model, given: Collection[str], known: set[str]) -> None:
    for place, name in _named(model):
        if place[1] in given and name not in known:
            raise Unprocessable(place, f"no model has the name {name}", name)


def _named(model: Model) -> list[tuple[Place, str]]:
    """The names that the model leads to, and where they stand in its body."""
    targets = enumerate(target.model for target in model.targets)
    return [
        *((("body", "targets", place, "model"), name) for place, name in targets),
        *((("body", "fallbacks", place), name) for place, name in enumerate(model.fallbacks)),
    ]


def _all(stored: RecordStore[Model]) -> list[Model]:
    models = stored.find(Where(), Page(limit=_PAGE))
    page = models
    while len(page) == _PAGE:
        page = stored.find(Where(), Page(limit=_PAGE, skip=len(models)))
        models = [*models, *page]
    return models
