"""Which worker takes which job."""

from engine.jobs.job import Job
from engine.jobs.queue import ClaimFilter
from engine.jobs.references import filter_texts, flatten
from engine.records.values import Worker, WorkerScope


def claim_filter(worker: Worker) -> ClaimFilter:
    """What a worker takes; `client_id` is None for a worker that serves all clients."""
    config = worker.config
    return ClaimFilter(
        client_id=worker.client_id if worker.scope is WorkerScope.CLIENT else None,
        operation=config.operation_filter or None,
        model=config.model_filter or None,
        references=filter_texts(config.client_reference_filters or {}),
    )


def mismatches(wanted: ClaimFilter, job: Job) -> list[str]:
    """Why a consumer with this filter does not take `job`, in words; empty when it does."""
    reasons = []
    if wanted.client_id not in (None, job.client_id):
        reasons.append("serves another client")
    if wanted.operation not in (None, job.operation):
        reasons.append(f"takes only operation {wanted.operation}")
    if wanted.model not in (None, job.model):
        reasons.append(f"takes only model {wanted.model}")
    missing = set(wanted.references) - set(flatten(job.client_reference))
    reasons.extend(f"takes only clientReference {text}" for text in sorted(missing))
    return reasons
