"""Rate limits in all their forms, and providers that never answer: faults 12 and 15, invariants 5 and 8."""

from datetime import timedelta
from itertools import pairwise

import pytest

from engine.jobs.states import JobState
from engine.llm import Timeouts
from tests.support.backends import Database
from tests.support.fake_provider import Rule, fault
from tests.support.invariants import check
from tests.support.plant import Plant, plant
from tests.support.service import one_of_each
from tests.support.waiting import eventually

pytestmark = pytest.mark.parametrize("backend", one_of_each(), indirect=True)

LATENCY = 0.1


def refused_until(made: Plant, announced: float) -> float:
    """The earliest instant at which the model `m` may be called again, by its first refusal."""
    first = min(call.arrived for call in made.fake.seen.calls if call.status == 429)
    return first + announced


def later_calls(made: Plant, model: str = "m") -> list[float]:
    """When the calls after the refusals came in."""
    return sorted(call.arrived for call in made.fake.seen.calls if call.model == model and call.status != 429)


@pytest.mark.parametrize(
    ("form", "announced"),
    [({"seconds": 2}, 2.0), ({"ms": 1500}, 1.5), ({"date": 3}, 2.0)],
    ids=["seconds", "milliseconds", "date"],
)
def test_a_pause_is_kept_to_the_end(database: Database, form: dict[str, int], announced: float) -> None:
    """Whatever the form of Retry-After, the model is not called before it, by none of two workers; nothing is charged,
    and jobs of another model are done meanwhile. Afterwards it begins with one call and goes on as answers come."""
    with plant(database, latency=LATENCY) as made:
        made.model()
        made.model("other")
        made.fake.add(Rule(fault("rate_limit", **form), model="m", times=4))
        made.post(4)
        made.employ()
        made.employ()
        eventually(lambda: made.fake.seen.by_status[429] == 4, what="all four refused")
        others = made.post(8, model="other")
        made.post(24)
        made.wait(others)
        assert later_calls(made) == []
        made.wait()
        calls = later_calls(made)
        assert calls[0] >= refused_until(made, announced)
        assert calls[1] >= calls[0] + LATENCY
        assert calls[3] >= calls[1] + LATENCY
        assert {job.attempts for job in made.jobs()} == {0}
        check(made)


def test_the_latest_announcement_wins(database: Database) -> None:
    """Of several refusals with different waits the one that ends last holds, in whichever order they come."""
    with plant(database, latency=LATENCY) as made:
        made.model()
        for wait in (500, 2500, 1000):
            made.fake.add(Rule(fault("rate_limit", ms=wait), model="m", times=1))
        made.post(12)
        made.fake.hold()
        made.employ(capacity=3)
        made.fake.seen.wait_until(lambda seen: seen.in_flight == 3)
        made.fake.release()
        made.wait()
        assert later_calls(made)[0] >= refused_until(made, 2.5)
        check(made)


def test_a_wait_of_minutes(database: Database) -> None:
    """A wait of over two minutes is kept like a short one: the jobs wait, visibly and uncharged, until then."""
    with plant(database) as made:
        made.model()
        made.fake.add(Rule(fault("rate_limit", seconds=150), model="m"))
        made.post(3)
        made.employ()

        def put_back() -> bool:
            return all(job.status is JobState.PENDING and job.failure is not None for job in made.jobs()[:1])

        eventually(put_back, what="the refused job is put back")
        [first, *_] = made.jobs()
        assert first.due_at is not None
        assert first.failure is not None
        assert timedelta(seconds=148) < first.due_at - first.failure.at < timedelta(seconds=152)
        assert first.attempts == 0
        assert made.fake.seen.total <= 3


def test_providers_that_do_not_answer(database: Database) -> None:
    """A call that is never answered, and one that drips, are ended by their timeouts and made again; the connections
    are closed, and all calls are on the ledger, the lost ones as unknown."""
    with plant(database, timeouts=Timeouts(connect=1.0, read=0.4, total=0.8)) as made:
        made.model()
        made.fake.add(Rule(fault("hang"), model="m", times=2), Rule(fault("drip", seconds=0.1), model="m", times=2))
        made.post(8)
        made.employ(capacity=4)
        jobs = made.wait()
        assert {job.status for job in jobs} == {JobState.PROCESSED}
        lost = [call for job in jobs for attempt in job.ledger for call in attempt.calls if call.outcome == "unknown"]
        assert [call.error_type for call in lost] == ["ProviderTimeout"] * 4
        eventually(lambda: made.fake.seen.hung_up == 4, what="the calls were dropped")
        check(made)


def test_refusals_without_a_word(database: Database) -> None:
    """A 429 that announces nothing pauses the model for longer each time, by chance and at most a minute; the jobs are
    done in the end."""
    with plant(database) as made:
        made.model()
        made.fake.add(Rule(fault("rate_limit"), model="m", times=3))
        made.post(2)
        made.employ(capacity=1)
        made.wait()
        refusals = sorted(call.arrived for call in made.fake.seen.calls if call.status == 429)
        assert all(later - earlier >= 0.5 for earlier, later in pairwise(refusals))
        assert {job.attempts for job in made.jobs()} == {0}
        check(made)
