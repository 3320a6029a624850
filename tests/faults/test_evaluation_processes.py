"""An evaluation whose service is killed with `kill -9` with all of its calls in flight.

That every storage call may be the last one, test_evaluations.py shows.
"""

from pathlib import Path
from typing import Any

import pytest

from engine.jobs.queue import JobQuery, Page
from engine.jobs.states import JobState
from engine.records.runs import OPTIMIZER
from tests.support.backends import Database
from tests.support.customer import MODEL, Customer, serving
from tests.support.service import Replica, one_of_each
from tests.support.waiting import eventually

pytestmark = pytest.mark.parametrize("backend", one_of_each(), indirect=True)

ITEMS = 20
PARALLEL = 8
HASTY = {"lease_seconds": 1, "worker_lease_seconds": 1}


def begun(customer: Customer, replica: Replica) -> str:
    """The id of an evaluation with a judge, so that every item takes two calls."""
    items = [{"input": {"n": number}, "expected": "x"} for number in range(ITEMS)]
    dataset = customer.call(replica, "POST", "/datasets", {"name": "items", "items": items})["datasetId"]
    judge = {"kind": "llm_judge", "parameters": {"model": MODEL, "rubric": "is right"}}
    evaluator = customer.call(replica, "POST", "/evaluators", {"name": "judged", "metrics": [judge]})["evaluatorId"]
    wanted = {
        "dataset": dataset,
        "evaluator": evaluator,
        "prompts": [{"instructions": "Answer as JSON."}],
        "models": [MODEL],
        "maxParallel": PARALLEL,
    }
    return str(customer.call(replica, "POST", "/evaluations", wanted)["evaluationId"])


def test_a_service_that_is_killed(database: Database, tmp_path: Path) -> None:
    """Each item has its result once; a call whose answer was stored is not made again, one that was lost is."""
    with serving(database, tmp_path, **HASTY) as (customer, [replica]):
        customer.employ(replica, capacity=50)
        customer.fake.hold()
        evaluation = begun(customer, replica)

        def now() -> Any:
            return customer.call(replica, "GET", f"/evaluations/{evaluation}")

        customer.fake.seen.wait_until(lambda seen: seen.in_flight == PARALLEL, timeout=30)
        replica.kill()
        customer.fake.release()
        replica.start()
        ended = eventually(lambda: now() if now()["status"] != "RUNNING" else None, within=30, what="it ended")
        results = customer.call(replica, "GET", f"/evaluations/{evaluation}/results?limit=1000")
        jobs = customer.storage.jobs.find(JobQuery(client_id=customer.client_id), Page(limit=1000))
    assert (ended["status"], ended["done"], len(results)) == ("COMPLETED", ITEMS, ITEMS)
    assert len({each["itemId"] for each in results}) == ITEMS
    assert len(jobs) == 2 * ITEMS
    assert {(job.status, job.metadata.updated_by) for job in jobs} == {(JobState.CONSUMED, OPTIMIZER)}
    kept = [[attempt for attempt in job.ledger if attempt.outcome == "completed"] for job in jobs]
    assert [len(attempts) for attempts in kept] == [1] * len(jobs)
    lost = sum(attempt.outcome == "lease_lost" for job in jobs for attempt in job.ledger)
    assert lost >= PARALLEL
    assert customer.fake.seen.total <= len(jobs) + lost
