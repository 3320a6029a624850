"""Many workers at once: what cannot be done for one of them is told, and the others go on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from api.services.job_edits import Editor
from api.services.workers import WorkerDraft, WorkerService
from engine.errors import Duplicate, NotFound, Refused
from engine.records.values import Worker


@dataclass(frozen=True, slots=True)
class Failed:
    """`worker` is an id or, for one that could not be made, a name."""

    worker: str
    error: str


@dataclass(frozen=True, slots=True)
class BatchResult:
    done: Sequence[Worker]
    failed: Sequence[Failed]

    @property
    def requested(self) -> int:
        return len(self.done) + len(self.failed)


def create_many(service: WorkerService, editor: Editor, owner: str, draft: WorkerDraft, count: int) -> BatchResult:
    """Workers named `draft.name`-1 to -`count`; names that are taken fail. Raises as `WorkerService.create` does."""
    done: list[Worker] = []
    failed: list[Failed] = []
    for number in range(1, count + 1):
        name = f"{draft.name}-{number}"
        try:
            done.append(service.create(editor, owner, replace(draft, name=name)))
        except Duplicate as error:
            failed.append(Failed(name, str(error)))
    return BatchResult(done, failed)


def start_or_stop(
    service: WorkerService, editor: Editor, *, start: bool, worker_ids: Sequence[str], group: str | None
) -> BatchResult:
    """Starts or stops the workers of `group` or, without one, those named; what cannot be done is in `failed`."""
    ids = [worker.id for worker in service.members(editor, group)] if group else list(worker_ids)
    act: Callable[[Editor, str], Worker] = service.start if start else service.stop
    done: list[Worker] = []
    failed: list[Failed] = []
    for worker_id in ids:
        try:
            done.append(act(editor, worker_id))
        except (NotFound, Refused) as error:
            failed.append(Failed(worker_id, str(error)))
    return BatchResult(done, failed)
