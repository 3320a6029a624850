"""The services of what prompts are tried on and measured by, built over given ports."""

from dataclasses import dataclass

from api.services.datasets import DatasetService
from engine.records.store import Storage
from utilities.clock import Clock
from utilities.ids import ObjectIds


@dataclass(frozen=True, slots=True, kw_only=True)
class DataServices:
    """Synchronous, called through the gate."""

    datasets: DatasetService


def build_data(storage: Storage, *, clock: Clock, ids: ObjectIds) -> DataServices:
    return DataServices(datasets=DatasetService(storage, clock=clock, ids=ids))
