"""Spending within limits: every call of a job is paid from its client's budget and its worker's cost cap.

One for all event loops of a process; the money's side of engine.jobs.rooms.Rooms.
"""

import asyncio
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from engine.errors import BudgetExhausted
from engine.jobs.job import Call, Lease
from engine.jobs.queue import Hold
from engine.pricing import Prices, to_units
from engine.purses import Purse, PurseKind, purse_of_client, purse_of_worker
from engine.records.store import Storage
from engine.records.values import Client, Model, Worker
from llm_workers.common_purses import CommonPurses
from llm_workers.wallet import Shut, Wallet
from utilities.clock import Clock
from utilities.hop import Hop

Payer = tuple[PurseKind, str]
"""A client or a worker, by its id."""


class Spender(Protocol):
    """What calls are made for: a job as it is held, or a stream."""

    @property
    def id(self) -> str: ...
    @property
    def client_id(self) -> str: ...
    @property
    def token(self) -> int: ...
    @property
    def lease(self) -> Lease | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendingTerms:
    """In seconds: `tick` lies between two looks at what is stored; what a silent replica holds lapses after `hold`.

    A call waits for others here to end for `patience`; what others hold is asked for again after `again`; what is not
    used for `idle` is given back.
    """

    tick: float = 1.0
    hold: float = 30.0
    patience: float = 5.0
    again: float = 1.0
    idle: float = 5.0


@dataclass(slots=True)
class _Account:
    """A payer as it was last read. `wallet` is None where nothing limits it."""

    used_at: float
    wallet: Wallet | None = None


class Wallets:
    """`replica` names this process and no other. `on_room` is called, from any thread, when claims may go on."""

    def __init__(
        self, storage: Storage, *, clock: Clock, hop: Hop, replica: str, terms: SpendingTerms | None = None
    ) -> None:
        self.on_room: Callable[[], None] = _nothing
        self._storage = storage
        self._clock = clock
        self._hop = hop
        self._terms = terms or SpendingTerms()
        self._common = CommonPurses(storage, clock, replica, self._terms.hold)
        self._lock = threading.Lock()
        self._accounts: dict[Payer, _Account] = {}
        self._closing: list[Wallet] = []
        self._begun: dict[Hold, set[Wallet]] = {}
        self._shut: frozenset[Payer] = frozenset()
        self._tick_at = -math.inf
        self._opening: dict[tuple[asyncio.AbstractEventLoop, Payer], asyncio.Future[_Account]] = {}

    def call(self, job: Spender, model: Model, estimate: Callable[[], int]) -> "SpendingCall":
        """The context of one call; `estimate` says, where anybody limits it, how many units it may cost.

        Entering it raises BudgetExhausted.
        """
        return SpendingCall(self, job, model.prices, estimate)

    def ended(self, hold: Hold) -> None:
        """The attempt is over and its calls are durable, or never will be. From any thread."""
        for wallet in self._begun.pop(hold, ()):
            wallet.settle(hold)

    def shut_clients(self) -> frozenset[str]:
        return frozenset(owner for kind, owner in self._shut if kind is PurseKind.CLIENT) if self._shut else frozenset()

    def shut_worker(self, worker_id: str) -> bool:
        return (PurseKind.WORKER, worker_id) in self._shut

    async def payers(self, job: Spender, currency: str) -> list[Wallet]:
        """Those that pay for the job's calls in that currency, and may not spend as much as they like."""
        found = [await self._wallet(payer) for payer in payers_of(job)]
        return [each for each in found if each is not None and each.purse.limit.currency == currency]

    async def reserve(self, wallets: Sequence[Wallet], hold: Hold, units: int) -> None:
        """Takes `units` from all of them or none.

        A job whose attempt has begun to spend goes on: it was in flight when the limit was reached.
        """
        taken: list[Wallet] = []
        try:
            for wallet in wallets:
                await self._take(wallet, units, anyway=wallet in self._begun.get(hold, ()))
                taken.append(wallet)
        except BaseException:
            self.pay(taken, hold, units, 0)
            raise
        self._begun.setdefault(hold, set()).update(taken)

    def pay(self, wallets: Iterable[Wallet], hold: Hold, estimate: int, units: int) -> None:
        """A call for which `estimate` was taken has ended and cost `units`."""
        reopened = False
        for wallet in wallets:
            wallet.cost(hold, estimate, units)
            if wallet.shut is Shut.RESERVED and wallet.has_room:
                wallet.shut = None
                reopened = True
        if reopened:
            self._publish()

    def tick(self) -> float:
        """What time does to wallets, and what others have done; reaches the storage where any was lately used.

        Seconds until the next is due.
        """
        now = self._clock.monotonic()
        if now < self._tick_at:
            return self._tick_at - now
        self._tick_at = now + self._terms.tick
        with self._lock:
            self._accounts = {payer: each for payer, each in self._accounts.items() if self._is_kept(each, now)}
        self._read_anew()
        for account in list(self._accounts.values()):
            if account.wallet is not None:
                self._look_after(account.wallet, now)
        self._close_old()
        self._publish()
        return self._terms.tick if self._accounts or self._closing else math.inf

    def close(self) -> None:
        """Gives back all that is held. For the time after the last call."""
        for account in self._accounts.values():
            if account.wallet is not None and account.wallet.holds:
                self._common.ask(account.wallet, give_back=True)
        self._close_old()

    def _is_kept(self, account: _Account, now: float) -> bool:
        wallet = account.wallet
        busy = wallet is not None and (wallet.holds or wallet.shut is not None)
        return busy or now - account.used_at < self._terms.idle

    def _read_anew(self) -> None:
        accounts = dict(self._accounts)  # what is opened meanwhile was not asked for here
        ids: dict[PurseKind, list[str]] = {kind: [] for kind in PurseKind}
        for kind, owner in accounts:
            ids[kind].append(owner)
        clients = self._storage.clients.get_many(ids[PurseKind.CLIENT]) if ids[PurseKind.CLIENT] else {}
        workers = self._storage.workers.get_many(ids[PurseKind.WORKER]) if ids[PurseKind.WORKER] else {}
        for (kind, owner), account in accounts.items():
            purse = self._purse(clients.get(owner) if kind is PurseKind.CLIENT else workers.get(owner))
            with self._lock:
                self._adopt(account, purse)

    def _purse(self, owner: Client | Worker | None) -> Purse | None:
        if isinstance(owner, Client):
            return purse_of_client(owner, self._clock.now())
        return None if owner is None else purse_of_worker(owner)

    def _adopt(self, account: _Account, purse: Purse | None) -> None:
        wallet = account.wallet
        if wallet is not None and purse is not None and purse.key == wallet.purse.key:
            if purse != wallet.purse:
                wallet.adopt(purse)
            return
        if wallet is not None:
            self._closing.append(wallet)
        account.wallet = None if purse is None else Wallet(purse)

    def _look_after(self, wallet: Wallet, now: float) -> None:
        unused = wallet.is_idle and now - wallet.used_at >= self._terms.idle
        if wallet.holds and unused:
            self._common.ask(wallet, give_back=True)
        elif wallet.shut is Shut.RESERVED or (wallet.holds and wallet.is_stale(now, self._terms.hold / 2)):
            self._common.ask(wallet)

    def _close_old(self) -> None:
        for wallet in list(self._closing):
            self._common.abandon(wallet)
            if wallet.is_idle and not wallet.holds:
                self._closing.remove(wallet)

    def _publish(self) -> None:
        with self._lock:
            before = self._shut
            self._shut = frozenset(
                payer
                for payer, account in self._accounts.items()
                if account.wallet is not None and account.wallet.shut is not None
            )
        if before - self._shut:
            self.on_room()

    async def _wallet(self, payer: Payer) -> Wallet | None:
        account = self._accounts.get(payer)
        over = account is not None and account.wallet is not None and account.wallet.purse.is_over(self._clock.now())
        if account is None or over:
            account = await self._opened(payer)
        account.used_at = self._clock.monotonic()
        return account.wallet

    async def _opened(self, payer: Payer) -> _Account:
        """Read once, however many jobs ask at a time on one loop."""
        key = asyncio.get_running_loop(), payer
        opening = self._opening.get(key)
        if opening is None:
            opening = self._opening[key] = asyncio.ensure_future(self._hop(self._open, payer))
            opening.add_done_callback(lambda done: self._forget_opening(key, done))
        return await asyncio.shield(opening)

    def _forget_opening(self, key: tuple[asyncio.AbstractEventLoop, Payer], done: "asyncio.Future[_Account]") -> None:
        """Where all who asked were cancelled, nobody hears of an error."""
        self._opening.pop(key, None)
        if not done.cancelled():
            done.exception()

    def _open(self, payer: Payer) -> _Account:
        kind, owner = payer
        purse = self._purse(
            self._storage.clients.get(owner) if kind is PurseKind.CLIENT else self._storage.workers.get(owner)
        )
        with self._lock:
            account = self._accounts.setdefault(payer, _Account(self._clock.monotonic()))
            self._adopt(account, purse)
            return account

    async def _take(self, wallet: Wallet, units: int, *, anyway: bool) -> None:
        give_up = self._clock.monotonic() + self._terms.patience
        while True:
            now = self._clock.monotonic()
            if wallet.take(units, now, anyway=anyway):
                return
            if wallet.may_ask(now, self._terms.again):
                await self._ask(wallet)
            elif wallet.shut is Shut.REACHED or wallet.in_flight == 0 or now >= give_up:
                raise self._exhausted(wallet)
            else:
                await wallet.room(min(self._terms.again, give_up - now))

    async def _ask(self, wallet: Wallet) -> None:
        """Asks the others, or waits for who is asking them."""
        if wallet.busy:
            await wallet.room(self._terms.again)
            return
        wallet.busy = True
        try:
            await self._hop(self._common.ask, wallet)
        finally:
            wallet.busy = False

    def _exhausted(self, wallet: Wallet) -> BudgetExhausted:
        if wallet.shut is None:
            wallet.shut = Shut.RESERVED
        self._publish()
        return BudgetExhausted(wallet.purse.used_up(held=wallet.shut is not Shut.REACHED))


class SpendingCall:
    """Set `made` to the call as the ledger has it; without one nothing was spent."""

    def __init__(self, wallets: Wallets, job: Spender, prices: Prices, estimate: Callable[[], int]) -> None:
        self.made: Call | None = None
        self._wallets = wallets
        self._job = job
        self._hold = Hold(job.id, job.token)
        self._prices = prices
        self._estimate = estimate
        self._units = 0
        self._payers: Sequence[Wallet] = ()

    async def __aenter__(self) -> "SpendingCall":
        payers = await self._wallets.payers(self._job, self._prices.currency)
        if payers:
            self._units = self._estimate()
            await self._wallets.reserve(payers, self._hold, self._units)
            self._payers = payers
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._payers:
            self._wallets.pay(self._payers, self._hold, self._units, 0 if self.made is None else units_of(self.made))


def units_of(call: Call) -> int:
    """What a call cost, in units of pricing.QUANTUM; what is not known counts nothing, as in the usage."""
    return sum(to_units(cost) for cost in (call.input_cost, call.output_cost) if cost is not None)


def payers_of(job: Spender) -> tuple[Payer, ...]:
    """Its client, and the worker that holds it (see ConsumerTerms.owner)."""
    client = (PurseKind.CLIENT, job.client_id)
    if job.lease is None or "@" not in job.lease.owner:
        return (client,)
    return client, (PurseKind.WORKER, job.lease.owner.partition("@")[0])


def _nothing() -> None:
    """Nobody listens."""
