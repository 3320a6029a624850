"""Limits that replicas share: used to the full, never exceeded, and nobody else's business. Invariants 5 and 6.

The minute is three seconds here; all else is as in production.
"""

from collections import Counter

import pytest

from engine.jobs.states import JobState
from engine.records.values import Limits
from llm_workers.capacity import Window
from llm_workers.common_capacity import key_of
from llm_workers.lane_terms import LaneTerms
from tests.support.backends import Database
from tests.support.fake_provider import Rule, fault
from tests.support.fake_provider.meter import TOKENS, Meter
from tests.support.invariants import check
from tests.support.plant import plant
from tests.support.service import one_of_each
from tests.support.waiting import eventually

SECONDS = 3.0
TERMS = LaneTerms(window=Window(SECONDS, slack=1.2))
LIMIT = 120

pytestmark = pytest.mark.parametrize("backend", one_of_each(), indirect=True)


@pytest.mark.parametrize(
    "limits",
    [Limits(requests_per_minute=LIMIT), Limits(tokens_per_minute=LIMIT * TOKENS)],
    ids=["requests", "tokens"],
)
def test_two_replicas_keep_to_one_limit(database: Database, limits: Limits) -> None:
    """No window holds more than the limit, the vendor refuses nothing, and the limit is used; the shared document is
    changed once for several jobs, though a replica starts but twenty calls a second."""
    with plant(database, replicas=2, terms=TERMS, latency=0.05) as made:
        meter = Meter(requests=LIMIT, tokens=LIMIT * TOKENS, seconds=SECONDS, penalty=1.0)
        made.fake.script.limit("m", meter)
        made.model(limits=limits)
        made.post(200)
        made.employ()
        made.wait()
        assert meter.refused == []
        assert meter.most() <= LIMIT
        assert meter.used() > 0.2
        changes = sum(Counter(replica.storage.log)["shared.change"] for replica in made.replicas)
        assert changes < 200 / 3
        check(made)


def test_two_replicas_share_a_concurrency(database: Database) -> None:
    """Never more calls than allowed run at a time, and all of them are used."""
    with plant(database, replicas=2, latency=0.05) as made:
        made.model(limits=Limits(concurrency=3))
        made.post(40)
        made.employ()
        made.wait()
        assert made.fake.seen.max_in_flight == 3
        assert made.fake.seen.total == 40
        check(made)


def test_an_exhausted_model_stands_in_nobodys_way(database: Database) -> None:
    """A worker with two slots and a hundred more urgent jobs of a model that is used up does those of another model
    at once; the jobs that wait are PENDING and no attempt of theirs is charged."""
    with plant(database) as made:
        made.model("full", limits=Limits(requests_per_minute=1))
        made.model("free")
        full = made.post(100, model="full", priority=1)
        free = made.post(20, model="free", priority=9)
        made.employ(capacity=2)
        made.wait(free)
        waiting = [job for job in made.jobs(full) if job.status is not JobState.PROCESSED]
        assert len(waiting) == 99
        assert not any(job.attempts for job in waiting)
        assert made.fake.seen.by_model == {"full": 1, "free": 20}


def test_a_pause_holds_for_all_replicas(database: Database) -> None:
    """After a 429 that announces two seconds no replica calls the model for two seconds, not even one that has not
    called it before; then all jobs are done, none charged."""
    with plant(database, replicas=2) as made:
        model = made.model()
        made.fake.add(Rule(fault("rate_limit", seconds=2), model="m", times=1))
        made.employ(capacity=4)
        first = made.post(1)
        eventually(
            lambda: made.storage.shared.get_many([key_of(model)]).get(key_of(model), {}).get("shut"), what="news"
        )
        others = made.post(20)
        made.wait()
        refused, *later = sorted(made.fake.seen.arrivals())
        assert min(later) >= refused + 2
        assert {job.attempts for job in made.jobs()} == {0}
        assert sum(job.waits for job in made.jobs(first)) == 1
        assert len(made.jobs(others)) == 20
        check(made)
