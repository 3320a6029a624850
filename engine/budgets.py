"""How a budget or a cost cap stands, as the storage tells: for whoever wants to see it. What may be spent, the workers
decide (see engine.purses)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from engine.pricing import from_units, to_units
from engine.purses import Purse, PurseKind, moved_of, purse_of_client, purse_of_worker, reserved_in
from engine.records.store import Storage
from engine.records.values import Client, Worker
from engine.usage import UsageQuery, UsageStore


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """Amounts in the purse's currency. `reserved` is held for calls: for some seconds after they have been counted in
    `spent` too. `exhausted`: all of the limit has been spent."""

    purse: Purse
    spent: Decimal
    reserved: Decimal

    @property
    def left(self) -> Decimal:
        return max(self.purse.limit.amount - self.spent - self.reserved, Decimal(0))

    @property
    def exhausted(self) -> bool:
        return self.spent >= self.purse.limit.amount


class Budgets:
    """Synchronous; raises StorageUnavailable."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def of_client(self, client: Client | None, now: datetime) -> BudgetState | None:
        """None where nothing limits it."""
        purse = None if client is None else purse_of_client(client, now)
        return None if purse is None else self._state(purse, now)

    def of_worker(self, worker: Worker, now: datetime) -> BudgetState | None:
        """None where nothing limits it, or it does not run."""
        purse = purse_of_worker(worker)
        return None if purse is None else self._state(purse, now)

    def spent_workers(self, workers: Sequence[Worker]) -> frozenset[str]:
        """Those of the workers that have spent all that they may; with one query."""
        purses = [purse for purse in map(purse_of_worker, workers) if purse is not None]
        found = self._storage.shared.get_many([purse.key for purse in purses]) if purses else {}
        return frozenset(purse.owner_id for purse in purses if moved_of(found.get(purse.key, {})) >= purse.units)

    def _state(self, purse: Purse, now: datetime) -> BudgetState:
        document = self._storage.shared.get_many([purse.key]).get(purse.key, {})
        by_client = purse.kind is PurseKind.CLIENT
        spent = spent_units(self._storage.usage, purse) if by_client else moved_of(document)
        reserved = reserved_in(document, now.timestamp())
        return BudgetState(purse=purse, spent=from_units(spent), reserved=from_units(reserved))


def spent_units(usage: UsageStore, purse: Purse) -> int:
    """What the usage says that a client has spent in the purse's period and currency, in units."""
    if purse.days is None:
        return 0
    query = UsageQuery(first=purse.days.first, last=purse.days.last, client_id=purse.owner_id, group_by=frozenset())
    rows = [row for row in usage.rows(query) if row.currency == purse.limit.currency]
    return sum(to_units(row.input_cost) + to_units(row.output_cost) for row in rows)
