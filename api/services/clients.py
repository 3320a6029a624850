"""Clients: who may use the service."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from api.core.authentication import ADMIN
from api.services.changing import changed
from engine.budgets import Budgets, BudgetState
from engine.errors import NotFound
from engine.jobs.queue import Page
from engine.metadata import Metadata
from engine.records.control import WorkerControl
from engine.records.store import RecordStore, Where, WorkerStore
from engine.records.values import Client, Worker, WorkerScope, WorkerStatus
from utilities.clock import Clock
from utilities.ids import new_uuid
from utilities.keys import KeyHasher

_WORKERS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class ClientWithKey:
    """A client and its key in clear: shown once, kept nowhere."""

    client: Client
    key: str


class ClientService:
    """Synchronous; for the administrator alone. `forget` makes authentication look at the stored clients again."""

    def __init__(
        self,
        clients: RecordStore[Client],
        workers: WorkerStore,
        control: WorkerControl,
        budgets: Budgets,
        *,
        hasher: KeyHasher,
        clock: Clock,
        forget: Callable[[], None],
    ) -> None:
        self._clients = clients
        self._workers = workers
        self._control = control
        self._budgets = budgets
        self._hasher = hasher
        self._clock = clock
        self._forget = forget

    def create(self, fields: Mapping[str, Any]) -> ClientWithKey:
        """`fields` are Client's by name, among them `name`."""
        metadata = Metadata(created_at=self._clock.now(), created_by=ADMIN)
        client = Client(
            id=new_uuid(), enabled=True, key_lookup="", key_salt="", key_hash="", metadata=metadata, **fields
        )
        made = self._with_new_key(client)
        self._clients.add(made.client)
        return made

    def list(self, page: Page) -> tuple[list[Client], int]:
        """A page of the clients, and how many there are."""
        return self._clients.find(Where(), page), self._clients.count(Where())

    def shown(self, client_id: str) -> tuple[Client, BudgetState | None]:
        """A client and how its budget stands. Raises NotFound."""
        client = _found(self._clients.get(client_id), client_id)
        return client, self._budgets.of_client(client, self._clock.now())

    def update(self, client_id: str, fields: Mapping[str, Any]) -> Client:
        """`fields` are the ones to change, by name. Raises NotFound."""

        def change(client: Client) -> Client:
            wanted = replace(client, **fields)
            return client if wanted == client else self._touched(wanted)

        return self._change(client_id, change)

    def toggle(self, client_id: str) -> Client:
        """Raises NotFound."""
        return self._change(client_id, lambda client: self._touched(replace(client, enabled=not client.enabled)))

    def rotate_key(self, client_id: str) -> ClientWithKey:
        """The old key is worth nothing from now on. Raises NotFound."""
        key = self._hasher.new_key()
        client = self._change(client_id, lambda client: self._touched(self._keyed(client, key)))
        return ClientWithKey(client, key)

    def delete(self, client_id: str) -> None:
        """Raises NotFound."""
        now = self._clock.now()
        self._change(client_id, lambda client: replace(client, metadata=client.metadata.deleted(now, ADMIN)))

    def _change(self, client_id: str, change: Callable[[Client], Client]) -> Client:
        client = changed(self._clients, client_id, lambda found: change(_found(found, client_id)))
        self._forget()
        if client.metadata.is_deleted or not client.enabled:
            self._stop_workers(client_id)
        return client

    def _touched(self, client: Client) -> Client:
        return replace(client, metadata=client.metadata.touched(self._clock.now(), ADMIN))

    def _with_new_key(self, client: Client) -> ClientWithKey:
        key = self._hasher.new_key()
        return ClientWithKey(self._keyed(client, key), key)

    def _keyed(self, client: Client, key: str) -> Client:
        salt = self._hasher.new_salt()
        return replace(
            client, key_lookup=self._hasher.lookup(key), key_salt=salt, key_hash=self._hasher.salted(key, salt)
        )

    def _stop_workers(self, client_id: str) -> None:
        """Stops the client's own workers; one that serves all clients is not the client's to lose."""
        where = Where(equals={"clientId": [client_id], "status": [str(WorkerStatus.RUNNING)]})
        shared = 0
        while workers := self._workers.find(where, Page(limit=_WORKERS_AT_ONCE, skip=shared)):
            for worker in workers:
                if worker.scope is WorkerScope.CLIENT:
                    self._stop_worker(worker.id)
                else:
                    shared += 1
        self._control.nudge()

    def _stop_worker(self, worker_id: str) -> None:
        def change(worker: Worker | None) -> Worker:
            if worker is None:
                raise NotFound("Worker", worker_id)
            if worker.status is not WorkerStatus.RUNNING:
                return worker
            metadata = worker.metadata.touched(self._clock.now(), ADMIN)
            stopped = replace(worker, status=WorkerStatus.STOPPED, lease=None, thread_id=None, started_at=None)
            return replace(stopped, metadata=metadata)

        with suppress(NotFound):
            changed(self._workers, worker_id, change)


def _found(client: Client | None, client_id: str) -> Client:
    if client is None:
        raise NotFound("Client", client_id)
    return client
