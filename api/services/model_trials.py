"""Tries stored models out."""

from api.core.gate import Gate
from api.services.models import ModelService
from engine.records.control import ModelTrials, Trial
from engine.records.values import Model


class ModelTrialService:
    """Asynchronous; for the administrator alone."""

    def __init__(self, models: ModelService, trials: ModelTrials, gate: Gate) -> None:
        self._models = models
        self._trials = trials
        self._gate = gate

    async def run(self, model_id: str) -> tuple[Model, Trial]:
        """The model, and what one call to it came to. Raises NotFound."""
        model = await self._gate(self._models.get, model_id)
        return model, await self._trials.run(model)
