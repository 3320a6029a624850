"""Jobs that were claimed and have not come to their model's lane yet."""

import random

from engine.llm import QuotaExhausted
from llm_workers.lane import Lane, LaneTerms
from tests.support.factories import make_model


def _reopened_at(lane: Lane) -> float:
    """The lane has just been shut by a used up quota; the instant at which calls are made again."""
    lane.arrive()
    assert lane.place(1, 0.0) is None
    shut = lane.failed(QuotaExhausted("no money", status=429), estimate=1, started_at=0.0, now=0.0)
    assert shut is not None
    return shut.until


def test_jobs_that_go_elsewhere_take_no_room() -> None:
    """Jobs that are claimed while a lane is shut are done by others: they do not fill it when it opens again."""
    lane = Lane(make_model(), LaneTerms(), random.Random(1))
    until = _reopened_at(lane)
    lane.promise(50, until - 0.1)
    assert lane.room(until) == 1


def test_a_claim_of_nothing_promises_nothing() -> None:
    """Promised jobs that never come count for a second, however often nothing is claimed meanwhile."""
    lane = Lane(make_model(), LaneTerms(), random.Random(1))
    until = _reopened_at(lane)
    lane.promise(1, until)
    for tenth in range(10):
        assert lane.room(until + tenth / 10) == 0
        lane.promise(0, until + tenth / 10)
    assert lane.room(until + 1.0) == 1
