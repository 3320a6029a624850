"""How many jobs a lane has room for, and when it is worth looking again."""

import random

import pytest

from engine.records.values import Limits
from llm_workers.lane import Lane, LaneTerms
from tests.support.factories import make_model


@pytest.mark.parametrize(("limit", "size"), [(1, 600), (1000, 600), (40_000, 25_000), (40_000, 90_000), (40_000, 20)])
def test_a_lane_at_rest_has_room(limit: int, size: int) -> None:
    """However large calls are beside the limit, one is worth claiming once the limit has been left alone for long."""
    lane = Lane(make_model(limits=Limits(tokens_per_minute=limit)), LaneTerms(), random.Random(1))
    lane.arrive()
    assert lane.place(size, 0.0) is None
    lane.dropped()
    lane.book(0.0, 1000.0)

    assert lane.room(1000.0 + lane.look_again(1000.0)) >= 1
    assert lane.room(2000.0) >= 1


def test_large_calls_are_claimed_one_at_a_time() -> None:
    """A call over what may be used at once is claimed when it may start soon, and none with it."""
    lane = Lane(make_model(limits=Limits(tokens_per_minute=1000)), LaneTerms(), random.Random(1))
    lane.book(0.0, 1000.0)

    assert lane.room(1000.0) == 0
    assert lane.room(1100.0) == 1
