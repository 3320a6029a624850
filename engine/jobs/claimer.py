"""Which jobs a consumer claims next: for one client, or for all of them in turn."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from engine.errors import StorageError
from engine.jobs.job import Job
from engine.jobs.queue import ClaimFilter, ClaimRequest, JobQueue
from engine.jobs.sharing import fair_shares

_CLIENTS_A_ROUND = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """At most `limit` jobs. `in_flight` counts what each client has running here; `caps` are a claim's.

    Nothing is claimed for `shut_clients`.
    """

    limit: int
    in_flight: Mapping[str, int] = field(default_factory=dict)
    caps: Mapping[str, int] = field(default_factory=dict)
    shut_clients: frozenset[str] = frozenset()


class Claimer:
    """Claims for one consumer. Synchronous; called from one thread at a time."""

    def __init__(self, queue: JobQueue, wanted: ClaimFilter, owner: str) -> None:
        self._queue = queue
        self._wanted = wanted
        self._owner = owner
        self._last_client: str | None = None

    def claim(self, wish: Wish, expires_at: datetime, now: datetime) -> list[Job]:
        """What `wish` allows, leased until `expires_at`.

        On an outage halfway through the clients, what was claimed so far is answered rather than lost.
        """
        round_ = _Round(wish, expires_at, now)
        only = self._wanted.client_id
        if only is not None:
            return [] if only in wish.shut_clients else self._claim(self._wanted, wish.limit, round_)
        try:
            waiting = self._waiting(wish.shut_clients)
            while waiting and len(round_.claimed) < wish.limit:
                shares = fair_shares(waiting, round_.held, wish.limit - len(round_.claimed))
                waiting = self._claim_shares(shares, round_)
        except StorageError:
            if not round_.claimed:
                raise
        return round_.claimed

    def _claim_shares(self, shares: Mapping[str, int], round_: "_Round") -> list[str]:
        """Claims each client's share; answers the clients that may have more."""
        rich = []
        for client, share in shares.items():
            jobs = self._claim(replace(self._wanted, client_id=client), share, round_)
            self._last_client = client
            if len(jobs) == share:
                rich.append(client)
        return rich

    def _waiting(self, shut: frozenset[str]) -> list[str]:
        """Clients with ready jobs, starting behind the one served last, so that all have their turn; none of `shut`.

        One query, unless there are too many clients for one: however many are shut, they keep no other one out of it.
        """
        last, most = self._last_client, _CLIENTS_A_ROUND + len(shut)
        first = self._queue.waiting_clients(self._wanted, None, most)
        after = [client for client in first if last is not None and client > last]
        if last is not None and len(first) == most:
            after = self._queue.waiting_clients(self._wanted, last, most)
        ordered = dict.fromkeys((*after, *first))
        return [client for client in ordered if client not in shut][:_CLIENTS_A_ROUND]

    def _claim(self, wanted: ClaimFilter, limit: int, round_: "_Round") -> list[Job]:
        request = ClaimRequest(
            filter=wanted, owner=self._owner, expires_at=round_.expires_at, limit=limit, caps=round_.caps
        )
        jobs = self._queue.claim(request, round_.now)
        round_.add(jobs)
        return jobs


class _Round:
    """One claim over all clients: what it has so far, and what that leaves."""

    def __init__(self, wish: Wish, expires_at: datetime, now: datetime) -> None:
        self.expires_at = expires_at
        self.now = now
        self.claimed: list[Job] = []
        self.held = dict(wish.in_flight)
        self.caps = dict(wish.caps)

    def add(self, jobs: list[Job]) -> None:
        self.claimed.extend(jobs)
        for job in jobs:
            self.held[job.client_id] = self.held.get(job.client_id, 0) + 1
            if job.model in self.caps:
                self.caps[job.model] = max(0, self.caps[job.model] - 1)
