"""Jobs that are scored by an evaluator, at a process that is killed between the work and its judge."""

from pathlib import Path

import pytest

from tests.support.backends import Database
from tests.support.customer import MODEL, serving
from tests.support.fake_provider import Rule, fault
from tests.support.service import one_of_each

LEASE = 2.0
JUDGE = {"kind": "llm_judge", "name": "tone", "parameters": {"model": MODEL, "rubric": "is very polite"}}


@pytest.mark.parametrize("backend", one_of_each(), indirect=True)
def test_a_process_killed_before_the_judge_has_answered(database: Database, tmp_path: Path) -> None:
    """kill -9 while the judge is asked: the job is done again when its lease has run out, and its result and its score
    come from one attempt, whose ledger has the work and the judge once each."""
    with serving(database, tmp_path, lease_seconds=LEASE, worker_lease_seconds=LEASE) as (customer, [replica]):
        customer.fake.add(Rule(fault("hang"), containing="very polite", times=1))
        evaluator = customer.call(replica, "POST", "/evaluators", {"name": "e", "metrics": [JUDGE]})["evaluatorId"]
        customer.post(replica, "scored", evaluator=evaluator)
        customer.employ(replica)
        customer.fake.seen.wait_until(lambda seen: seen.total == 2, timeout=30)
        replica.kill()
        replica.start()
        [job] = customer.wait()
        assert [attempt.outcome for attempt in job.ledger] == ["lease_lost", "completed"]
        assert [call.step for call in job.ledger[-1].calls] == ["work", "eval"]
        assert job.attempts == 0
        assert job.eval_result is not None
        assert job.eval_result["score"] == 1
        assert customer.fake.seen.total == 4
        assert set(customer.fake.seen.by_attempt.values()) == {1}
