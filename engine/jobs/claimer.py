"""Which jobs a consumer claims next: for one client, or for all of them in turn."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from engine.errors import StorageError
from engine.jobs.job import Job
from engine.jobs.queue import ClaimFilter, ClaimRequest, JobQueue
from engine.jobs.sharing import fair_shares

_CLIENTS_A_ROUND = 64


class Claimer:
    """Claims for one consumer. Synchronous; called from one thread at a time."""

    def __init__(self, queue: JobQueue, wanted: ClaimFilter, owner: str) -> None:
        self._queue = queue
        self._wanted = wanted
        self._owner = owner
        self._last_client: str | None = None

    def claim(self, limit: int, in_flight: Mapping[str, int], expires_at: datetime, now: datetime) -> list[Job]:
        """Up to `limit` jobs, leased until `expires_at`. `in_flight` counts what each client has running here.

        On an outage halfway through the clients, what was claimed so far is answered rather than lost.
        """
        if self._wanted.client_id is not None:
            return self._claim(self._wanted, limit, expires_at, now)
        claimed: list[Job] = []
        held = dict(in_flight)
        try:
            waiting = self._waiting()
            while waiting and len(claimed) < limit:
                shares = fair_shares(waiting, held, limit - len(claimed))
                waiting = self._claim_shares(shares, held, claimed, expires_at, now)
        except StorageError:
            if not claimed:
                raise
        return claimed

    def _claim_shares(
        self, shares: Mapping[str, int], held: dict[str, int], claimed: list[Job], expires_at: datetime, now: datetime
    ) -> list[str]:
        """Claims each client's share; answers the clients that may have more."""
        rich = []
        for client, share in shares.items():
            jobs = self._claim(replace(self._wanted, client_id=client), share, expires_at, now)
            claimed.extend(jobs)
            held[client] = held.get(client, 0) + len(jobs)
            self._last_client = client
            if len(jobs) == share:
                rich.append(client)
        return rich

    def _waiting(self) -> list[str]:
        """Clients with ready jobs, starting behind the one served last, so that all have their turn.

        One query, unless there are too many clients for one.
        """
        last = self._last_client
        first = self._queue.waiting_clients(self._wanted, None, _CLIENTS_A_ROUND)
        if last is None:
            return first
        after = [client for client in first if client > last]
        if len(first) == _CLIENTS_A_ROUND:
            after = self._queue.waiting_clients(self._wanted, last, _CLIENTS_A_ROUND)
        known = set(after)
        return (after + [client for client in first if client not in known])[:_CLIENTS_A_ROUND]

    def _claim(self, wanted: ClaimFilter, limit: int, expires_at: datetime, now: datetime) -> list[Job]:
        request = ClaimRequest(filter=wanted, owner=self._owner, expires_at=expires_at, limit=limit)
        return self._queue.claim(request, now)
