"""Workers: configured consumers, started and stopped by what is stored about them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from api.services.changing import changed
from api.services.job_edits import Editor
from engine.budgets import Budgets, BudgetState
from engine.errors import Forbidden, MetasyncError, NotFound, Refused, UnknownReference
from engine.jobs.queue import Page
from engine.jobs.references import filter_texts
from engine.metadata import Metadata
from engine.records.control import WorkerControl
from engine.records.store import RecordStore, Where, WorkerStore
from engine.records.values import Client, Worker, WorkerConfig, WorkerScope, WorkerStatus
from utilities.clock import Clock
from utilities.ids import ObjectIds

_PAGE = 1000

NoWorker = Callable[[str], MetasyncError]
"""What is raised for a worker that is not there, or not there for this caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDraft:
    """A worker as it was asked for."""

    name: str
    config: WorkerConfig
    group: str | None = None
    scope: WorkerScope = WorkerScope.CLIENT


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerQuery:
    """None and {} do not restrict; `references` are compared with the workers' own filters, exactly as jobs' are."""

    model_filter: str | None = None
    operation_filter: str | None = None
    references: tuple[str, ...] = ()


class WorkerService:
    """A client sees and commands its own workers; those that serve all clients, and all others, are an admin's.

    Synchronous. A start or a stop is a write of the desired state: it answers at once, whatever is in flight, and the
    replica that holds the worker's lease follows.
    """

    def __init__(
        self,
        workers: WorkerStore,
        clients: RecordStore[Client],
        control: WorkerControl,
        budgets: Budgets,
        *,
        clock: Clock,
        ids: ObjectIds,
    ) -> None:
        self._workers = workers
        self._clients = clients
        self._control = control
        self._budgets = budgets
        self._clock = clock
        self._ids = ids

    def create(self, editor: Editor, owner: str, draft: WorkerDraft) -> Worker:
        """A stopped worker. Raises Duplicate for a taken name, InvalidField, Forbidden for a client's `all`."""
        if draft.scope is WorkerScope.ALL and not editor.admin:
            raise Forbidden("only an admin may create a worker that serves all clients")
        _check(draft.config)
        worker = Worker(
            id=self._ids.new(),
            name=draft.name,
            client_id=owner,
            scope=draft.scope,
            status=WorkerStatus.STOPPED,
            config=draft.config,
            group=draft.group,
            metadata=Metadata(created_at=self._clock.now(), created_by=editor.by),
        )
        self._workers.add(worker)
        return worker

    def get(self, editor: Editor, worker_id: str) -> Worker:
        """Raises NotFound."""
        return _seen(self._workers.get(worker_id), editor, worker_id)

    def shown(self, editor: Editor, worker_id: str) -> tuple[Worker, BudgetState | None]:
        """A worker and how its cost cap stands. Raises NotFound."""
        worker = self.get(editor, worker_id)
        return worker, self._budgets.of_worker(worker, self._clock.now())

    def list(self, editor: Editor, page: Page) -> tuple[list[Worker], int]:
        """A page of the workers, and how many there are."""
        where = _own(editor)
        return self._workers.find(where, page), self._workers.count(where)

    def matching(self, editor: Editor, query: WorkerQuery) -> Sequence[Worker]:
        """All workers that pass `query`."""
        return [worker for worker in self._all(_own(editor)) if _passes(worker, query)]

    def members(self, editor: Editor, group: str) -> Sequence[Worker]:
        """All workers of a group."""
        where = _own(editor)
        return self._all(replace(where, equals={**where.equals, "group": [group]}))

    def update(self, editor: Editor, worker_id: str, config: WorkerConfig | None) -> Worker:
        """Another configuration; None changes nothing. Raises Refused while it runs and where it is not there."""
        if config is not None:
            _check(config)

        def change(worker: Worker) -> Worker:
            if worker.status is WorkerStatus.RUNNING:
                raise Refused(f"Worker {worker_id} is running: stop it before changing it")
            return worker if config is None else self._touched(replace(worker, config=config), editor)

        return self._change(editor, worker_id, change, missing=lambda key: UnknownReference("Worker", key))

    def delete(self, editor: Editor, worker_id: str) -> None:
        """Raises NotFound, and Refused while it runs."""

        def change(worker: Worker) -> Worker:
            if worker.status is WorkerStatus.RUNNING:
                raise Refused(f"Worker {worker_id} is running: stop it before deleting it")
            return replace(worker, metadata=worker.metadata.deleted(self._clock.now(), editor.by))

        self._change(editor, worker_id, change)

    def start(self, editor: Editor, worker_id: str) -> Worker:
        """Running from now on, here. Raises NotFound, and Refused where it runs already or its client is disabled."""

        def change(worker: Worker) -> Worker:
            if worker.status is WorkerStatus.RUNNING:
                raise Refused(f"Worker {worker_id} is already running")
            self._check_client(worker)
            placed = self._control.placed(worker, self._clock.now())
            return self._touched(replace(placed, status=WorkerStatus.RUNNING), editor)

        worker = self._change(editor, worker_id, change)
        self._control.nudge()
        return worker

    def stop(self, editor: Editor, worker_id: str) -> Worker:
        """Stopped from now on, everywhere. Raises NotFound, and Refused where it is stopped already."""

        def change(worker: Worker) -> Worker:
            if worker.status is WorkerStatus.STOPPED:
                raise Refused(f"Worker {worker_id} is already stopped")
            stopped = replace(worker, status=WorkerStatus.STOPPED, lease=None, thread_id=None, started_at=None)
            return self._touched(stopped, editor)

        worker = self._change(editor, worker_id, change)
        self._control.nudge()
        return worker

    def _change(
        self, editor: Editor, worker_id: str, change: Callable[[Worker], Worker], missing: NoWorker | None = None
    ) -> Worker:
        return changed(self._workers, worker_id, lambda found: change(_seen(found, editor, worker_id, missing)))

    def _touched(self, worker: Worker, editor: Editor) -> Worker:
        return replace(worker, metadata=worker.metadata.touched(self._clock.now(), editor.by))

    def _check_client(self, worker: Worker) -> None:
        client = self._clients.get(worker.client_id) if worker.scope is WorkerScope.CLIENT else None
        if client is not None and not client.enabled:
            raise Refused(f"the client of worker {worker.id} is disabled")

    def _all(self, where: Where) -> Sequence[Worker]:
        found: list[Worker] = []
        while True:
            page = self._workers.find(where, Page(limit=_PAGE, skip=len(found)))
            found += page
            if len(page) < _PAGE:
                return found


def _own(editor: Editor) -> Where:
    if editor.admin:
        return Where()
    return Where(equals={"clientId": [editor.by], "scope": [str(WorkerScope.CLIENT)]})


def _seen(worker: Worker | None, editor: Editor, worker_id: str, missing: NoWorker | None = None) -> Worker:
    own = worker is not None and worker.client_id == editor.by and worker.scope is WorkerScope.CLIENT
    if worker is None or not (editor.admin or own):
        raise NotFound("Worker", worker_id) if missing is None else missing(worker_id)
    return worker


def _check(config: WorkerConfig) -> None:
    """Raises InvalidField for a clientReference filter that no job could be asked by."""
    filter_texts(config.client_reference_filters or {})


def _passes(worker: Worker, query: WorkerQuery) -> bool:
    config = worker.config
    if query.model_filter is not None and config.model_filter != query.model_filter:
        return False
    if query.operation_filter is not None and config.operation_filter != query.operation_filter:
        return False
    return set(query.references) <= set(filter_texts(config.client_reference_filters or {}))
