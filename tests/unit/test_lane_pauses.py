"""For how long a lane is shut after refusals."""

import random
from datetime import timedelta

import pytest

from engine.llm import ProviderError, QuotaExhausted, RateLimited
from llm_workers.corrections import Booked
from llm_workers.lane import Lane
from llm_workers.lane_terms import LaneTerms, Reason, Shut
from tests.support.factories import make_model

NOW = 1000.0


@pytest.mark.parametrize(("error", "most"), [(RateLimited("429"), 1.0), (QuotaExhausted("no money"), 60.0)])
def test_a_burst_of_refusals_is_one(error: ProviderError, most: float) -> None:
    """Ten calls at a time that are refused without an announcement pause the model as one of them would."""
    lane = Lane(make_model(), LaneTerms(), random.Random(1))
    for _ in range(10):
        lane.arrive()
        assert lane.place(1, NOW) is None
    shuts = [lane.failed(error, booked=Booked(1), started_at=NOW, now=NOW + 0.1) for _ in range(10)]

    assert [shut is not None for shut in shuts] == [True] + [False] * 9
    shut = lane.shut_now(NOW + 0.2)
    assert shut is not None
    assert most / 2 <= round(shut.until - NOW - 0.1, 6) <= most


def test_after_a_long_pause_calls_come_back_slowly() -> None:
    """A replica that was told of a pause, however long, does not start all it had running before with the first
    answer."""
    lane = Lane(make_model(), LaneTerms(), random.Random(1))
    for _ in range(64):
        lane.arrive()
        assert lane.place(1, NOW) is None
    for _ in range(64):
        lane.dropped()
    lane.shut(Shut(NOW + 100, Reason.RATE_LIMIT, "429"))
    for _ in range(200):
        lane.cool()

    assert lane.free_places(NOW + 101) == 1
    lane.concurrency.succeeded()
    assert lane.free_places(NOW + 101) == 2


def test_a_claim_of_nothing_is_no_use_of_a_lane() -> None:
    """A model that has no jobs is not asked after twice a second for ever, because claims that find none go on."""
    lane = Lane(make_model(), LaneTerms(), random.Random(1))
    lane.promise(0, NOW)
    assert not lane.is_active(NOW)
    lane.promise(1, NOW)
    assert lane.is_active(NOW)


def test_the_latest_announcement_counts_to_the_millisecond() -> None:
    """Every later instant is kept to here, however little later; others are told where it is by more than a moment."""
    lane = Lane(make_model(), LaneTerms(), random.Random(1))
    told = []
    for milliseconds in (1000, 1030, 1060, 1090, 1020):
        lane.running = 1
        error = RateLimited("429", retry_after=timedelta(milliseconds=milliseconds))
        told.append(lane.failed(error, booked=Booked(1), started_at=NOW, now=NOW) is not None)

    assert told == [True, False, True, False, False]
    assert lane.free_places(NOW + 1.089) == 0
    assert lane.free_places(NOW + 1.091) == 1
