"""How stored models do now."""

from api.services.models import ModelService
from engine.jobs.queue import Page
from engine.records.control import ModelState, ModelStates
from engine.records.values import Model


class ModelStateService:
    """Synchronous; for the administrator alone."""

    def __init__(self, models: ModelService, states: ModelStates) -> None:
        self._models = models
        self._states = states

    def get(self, model_id: str) -> tuple[Model, ModelState]:
        """Raises NotFound."""
        model = self._models.get(model_id)
        return model, self._states.of([model])[0]

    def list(self, page: Page) -> tuple[list[tuple[Model, ModelState]], int]:
        """A page of the models with their states, and how many models there are."""
        models, total = self._models.list(page)
        return list(zip(models, self._states.of(models), strict=True)), total
