"""Models: the deployments that jobs may name."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from api.core.authentication import ADMIN
from api.core.unprocessable import Unprocessable
from api.services.changing import changed
from api.services.model_routes import check_routes
from engine.errors import NotFound, UnknownReference
from engine.jobs.queue import Page
from engine.llm import ProviderRegistry
from engine.metadata import Metadata
from engine.records.store import RecordStore, Where
from engine.records.values import ROUTER, Limits, Model
from utilities.clock import Clock
from utilities.ids import ObjectIds


class ModelService:
    """Synchronous; all but `list` and `named` are for the administrator alone.

    `forget` drops what is remembered of models.
    """

    def __init__(
        self,
        models: RecordStore[Model],
        registry: ProviderRegistry,
        *,
        clock: Clock,
        ids: ObjectIds,
        forget: Callable[[], None],
    ) -> None:
        self._models = models
        self._registry = registry
        self._clock = clock
        self._ids = ids
        self._forget = forget

    def create(self, fields: Mapping[str, Any]) -> Model:
        """`fields` are Model's own but id, metadata and revision; `limits` those of Limits' fields that are set.

        Raises Unprocessable for an unknown sdk and as check_routes does.
        """
        self._check_sdk(fields["sdk"])
        metadata = Metadata(created_at=self._clock.now(), created_by=ADMIN)
        limits = Limits(**fields.get("limits", {}))
        model = Model(**{**fields, "id": self._ids.new(), "metadata": metadata, "limits": limits})
        check_routes(model, fields, self._models)
        self._models.add(model)
        return model

    def list(self, page: Page) -> tuple[list[Model], int]:
        """A page of the models, and how many there are."""
        return self._models.find(Where(), page), self._models.count(Where())

    def get(self, model_id: str) -> Model:
        """Raises NotFound."""
        return _found(self._models.get(model_id), model_id)

    def named(self, name: str) -> Model:
        """Raises UnknownReference."""
        found = self._models.find(Where(equals={"name": [name]}), Page(limit=1))
        if not found:
            raise UnknownReference("model", name)
        return found[0]

    def update(self, model_id: str, fields: Mapping[str, Any]) -> Model:
        """The model with `fields` changed. Raises NotFound, and Unprocessable where the whole is no valid model."""
        if "sdk" in fields:
            self._check_sdk(fields["sdk"])

        def change(model: Model) -> Model:
            limits = replace(model.limits, **fields.get("limits", {}))
            wanted = replace(model, **{**fields, "limits": limits})
            if wanted == model:
                return model
            _check_temperatures(wanted, fields)
            new = [name for name in fields if getattr(wanted, name) != getattr(model, name)]
            check_routes(wanted, new, self._models)
            return replace(wanted, metadata=model.metadata.touched(self._clock.now(), ADMIN))

        return self._change(model_id, change)

    def delete(self, model_id: str) -> None:
        """Raises NotFound."""
        now = self._clock.now()
        self._change(model_id, lambda model: replace(model, metadata=model.metadata.deleted(now, ADMIN)))

    def _change(self, model_id: str, change: Callable[[Model], Model]) -> Model:
        model = changed(self._models, model_id, lambda found: change(_found(found, model_id)))
        self._forget()
        return model

    def _check_sdk(self, sdk: str) -> None:
        names = self._registry.names() | {ROUTER}
        if sdk not in names:
            raise Unprocessable(("body", "sdk"), f"Unknown SDK, must be one of: {', '.join(sorted(names))}", sdk)


def _check_temperatures(model: Model, fields: Mapping[str, Any]) -> None:
    if model.max_temperature < model.min_temperature:
        given = "maxTemperature" if "max_temperature" in fields else "minTemperature"
        value = model.max_temperature if given == "maxTemperature" else model.min_temperature
        raise Unprocessable(("body", given), "maxTemperature must not be less than minTemperature", value)


def _found(model: Model | None, model_id: str) -> Model:
    if model is None:
        raise NotFound("Model", model_id)
    return model
