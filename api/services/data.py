"""The services of what prompts are tried on and measured by, built over given ports."""

from dataclasses import dataclass

from api.core.gate import Gate
from api.services.datasets import DatasetService
from api.services.direct import DirectService
from api.services.dry_runs import DryRuns
from api.services.evaluations import EvaluationService, Wake
from api.services.evaluators import EvaluatorService
from api.services.references import Catalogue
from engine.evaluation.measures import Measures
from engine.records.store import Storage
from utilities.clock import Clock
from utilities.ids import ObjectIds


@dataclass(frozen=True, slots=True, kw_only=True)
class DataServices:
    """Synchronous and called through the gate, but for dry runs."""

    datasets: DatasetService
    evaluators: EvaluatorService
    evaluations: EvaluationService
    dry_runs: DryRuns
    measures: Measures

    def close(self) -> None:
        self.measures.close()


def build_data(
    storage: Storage,
    catalogue: Catalogue,
    direct: DirectService,
    gate: Gate,
    *,
    wake: Wake,
    clock: Clock,
    ids: ObjectIds,
) -> DataServices:
    """For one event loop. `wake` tells whoever drives evaluations that one is new or has changed."""
    measures = Measures()
    return DataServices(
        datasets=DatasetService(storage, clock=clock, ids=ids),
        evaluators=EvaluatorService(storage.evaluators, catalogue, measures, clock=clock, ids=ids),
        evaluations=EvaluationService(storage, catalogue, wake, clock=clock, ids=ids),
        dry_runs=DryRuns(direct, measures, gate),
        measures=measures,
    )
