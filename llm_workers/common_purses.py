"""A wallet's part in what replicas share of its purse: the reports, and the document that they agree through."""

import structlog

from engine.budgets import spent_units
from engine.llm import JsonObject
from engine.purses import Ask, Grant, News, Purse, PurseKind, Seen, abandoned, granted, moved_of
from engine.records.store import Storage
from llm_workers.wallet import Wallet
from utilities.clock import Clock

_SURE = 0.8
"""Of the time for which a part is held: for so long it is spent from, lest others count on it already."""

log = structlog.get_logger(__name__)


class CommonPurses:
    """Synchronous; all of it reaches the storage and raises StorageUnavailable. `replica` names this process."""

    def __init__(self, storage: Storage, clock: Clock, replica: str, hold: float) -> None:
        self._storage = storage
        self._clock = clock
        self._replica = replica
        self._hold = hold

    def ask(self, wallet: Wallet, *, give_back: bool = False) -> None:
        """Reports, renews what is held, and takes what is wanted and there; whoever waited for this has it too."""
        asked_at = self._clock.monotonic()
        with wallet.asking:
            if wallet.asked_at >= asked_at:
                return
            started_at = self._clock.monotonic()
            purse, now = wallet.purse, self._clock.now()
            ask = wallet.ask(self._replica, now.timestamp() + self._hold, started_at, give_back=give_back)
            seen = self._seen(purse, ask)

            def change(document: JsonObject) -> tuple[JsonObject, Grant]:
                return granted(document, ask, purse, seen, now.timestamp())

            grant = self._storage.shared.change(purse.key, change, now)
            wallet.learn(ask, grant, valid_until=started_at + self._hold * _SURE)
        _tell(purse, grant.news)

    def abandon(self, wallet: Wallet) -> None:
        """Reports, and gives back what no call needs any more, of a purse that is not spent from now on."""
        with wallet.asking:
            purse, now = wallet.purse, self._clock.now()
            until, started_at = now.timestamp() + self._hold, self._clock.monotonic()
            ask = wallet.ask(self._replica, until, started_at, give_back=True)
            news = self._storage.shared.change(purse.key, lambda document: abandoned(document, ask, purse.version), now)
            grant = Grant(held=ask.keep, left=0, reached=False)
            wallet.learn(ask, grant, valid_until=float("-inf"))
        _tell(purse, news)

    def _seen(self, purse: Purse, ask: Ask) -> Seen:
        """The document goes first: what moves into the usage after it is counted with either."""
        if purse.kind is PurseKind.WORKER or purse.days is None:
            return Seen()
        document = self._storage.shared.get_many([purse.key]).get(purse.key, {})
        return Seen(spent_units(self._storage.usage, purse), moved_of(document) + ask.settled)


def _tell(purse: Purse, news: News | None) -> None:
    if news is News.REACHED:
        log.warning("budget_reached", **{str(purse.kind): purse.owner_id}, reason=purse.used_up())
    elif news is News.RESUMED:
        log.warning("budget_resumed", **{str(purse.kind): purse.owner_id}, limit=purse.text)
