"""A stored job that cannot be read, of a newer version or spoiled by hand: the queue goes on around it."""

import sqlite3
from datetime import timedelta
from typing import Any

from pymongo import MongoClient

from engine.jobs.queue import ClaimFilter, ClaimRequest
from engine.jobs.recovery import recover
from engine.jobs.retry import RetryPolicy
from tests.support.backends import SQLITE, Database
from tests.support.factories import CLIENT, MINUTE, NOW, make_jobs
from tests.support.faulty import Faulty, Plan
from tests.support.rig import ScriptedHandler, new_job, new_worker, running_pool
from tests.support.waiting import eventually
from utilities.clock import SystemClock

CLOCK = SystemClock()


def _spoil(database: Database, job_id: str) -> None:
    if database.backend == SQLITE:
        connection = sqlite3.connect(database.url.removeprefix("sqlite:///"))
        with connection:
            connection.execute("UPDATE jobs SET body = '{}' WHERE id = ?", (job_id,))
        connection.close()
        return
    with MongoClient[dict[str, Any]](database.url) as client:
        client[database.name]["jobs"].update_one({"_id": job_id}, {"$unset": {"workingPrompts": ""}})


def test_the_others_are_claimed_and_recovered(database: Database) -> None:
    """Neither a claim nor the recovery of lost leases fails for the sake of one job."""
    storage, jobs = database.open(), make_jobs(3)
    storage.jobs.insert(jobs)
    _spoil(database, jobs[1].id)
    request = ClaimRequest(filter=ClaimFilter(client_id=CLIENT), owner="o", expires_at=NOW + MINUTE, limit=10)
    assert [job.id for job in storage.jobs.claim(request, NOW)] == [jobs[0].id, jobs[2].id]
    assert recover(storage.jobs, RetryPolicy(), NOW + 2 * MINUTE).requeued == 2


def test_the_pool_does_not_spin(database: Database) -> None:
    """A lease that can never be taken back is looked at once a tick, not all the time; other jobs are done."""
    storage = database.open()
    spoiled, worker = new_job(CLOCK), new_worker(CLOCK)
    storage.jobs.insert([spoiled])
    _spoil(database, spoiled.id)
    storage.workers.add(worker)
    faulty = Faulty(storage, Plan())
    short = timedelta(milliseconds=300)
    with running_pool(faulty, ScriptedHandler(), worker=worker, lease=short, reader=storage) as rig:
        rig.post([new_job(CLOCK) for _ in range(3)])
        rig.wait()
        eventually(lambda: faulty.log.count("jobs.expired") >= 3)
        looks = faulty.instants("jobs.expired")
    assert looks[2] - looks[1] > 0.5
