"""Whose jobs a consumer claims, in which order, and what that costs."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from engine.errors import StorageUnavailable
from engine.jobs.claimer import Claimer, Wish
from engine.jobs.job import Job
from engine.jobs.queue import ClaimFilter
from engine.storage.factory import open_storage
from tests.support.factories import NOW, make_job
from tests.support.faulty import Fault, Faulty, Plan

LATER = NOW + timedelta(minutes=1)


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Faulty]:
    """Which back-end it is does not matter here."""
    storage = open_storage(f"sqlite:///{tmp_path / 'jobs.db'}", database="test", synchronous="NORMAL")
    yield Faulty(storage, Plan())
    storage.close()


def _claimer(faulty: Faulty) -> Claimer:
    return Claimer(faulty.jobs, ClaimFilter(), "owner")  # type: ignore[attr-defined]


def _post(faulty: Faulty, *clients: str) -> list[Job]:
    jobs = [make_job(client_id=client) for client in clients]
    faulty.jobs.insert(jobs)  # type: ignore[attr-defined]
    return jobs


def test_an_idle_look_is_one_query(faulty: Faulty) -> None:
    """Finding nothing costs one query, also for a worker that has served somebody before."""
    claimer = _claimer(faulty)
    _post(faulty, "a")
    assert len(claimer.claim(Wish(limit=5), LATER, NOW)) == 1
    faulty.log.clear()
    assert claimer.claim(Wish(limit=5), LATER, NOW) == []
    assert faulty.log == ["jobs.waiting_clients"]


def test_clients_have_their_turn(faulty: Faulty) -> None:
    """With one free slot at a time, clients are served in turn, however many there are."""
    clients = [f"client-{number:03}" for number in range(150)]
    _post(faulty, *clients, *clients)
    claimer = _claimer(faulty)
    served = [job.client_id for _ in range(300) for job in claimer.claim(Wish(limit=1), LATER, NOW)]
    assert served == clients * 2


def test_clients_that_are_shut_keep_nobody_out(faulty: Faulty) -> None:
    """However many clients' money is used up, those behind them have their turn, and only they."""
    poor = [f"client-{number:03}" for number in range(150)]
    _post(faulty, *poor, "client-x", "client-y")
    claimer = _claimer(faulty)
    wish = Wish(limit=1, shut_clients=frozenset(poor))
    served = [job.client_id for _ in range(3) for job in claimer.claim(wish, LATER, NOW)]
    assert served == ["client-x", "client-y"]


def test_what_was_claimed_before_an_outage_is_not_lost(faulty: Faulty) -> None:
    """When the database goes away between two clients, the jobs that are leased already are worked on."""
    _post(faulty, "a", "b")
    faulty._plan = Plan(Fault.BEFORE, faulty.count + 3)
    claimed = _claimer(faulty).claim(Wish(limit=5), LATER, NOW)
    assert [job.client_id for job in claimed] == ["a"]


def test_an_outage_is_no_empty_queue(faulty: Faulty) -> None:
    """Where nothing was claimed yet, the outage is raised."""
    _post(faulty, "a", "b")
    faulty._plan = Plan(Fault.BEFORE, faulty.count + 2)
    with pytest.raises(StorageUnavailable):
        _claimer(faulty).claim(Wish(limit=5), LATER, NOW)
