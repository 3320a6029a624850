"""For how long a lane is shut after refusals."""

import random

import pytest

from engine.llm import ProviderError, QuotaExhausted, RateLimited
from llm_workers.lane import Lane, LaneTerms
from tests.support.factories import make_model

NOW = 1000.0


@pytest.mark.parametrize(("error", "most"), [(RateLimited("429"), 1.0), (QuotaExhausted("no money"), 60.0)])
def test_a_burst_of_refusals_is_one(error: ProviderError, most: float) -> None:
    """Ten calls at a time that are refused without an announcement pause the model as one of them would."""
    lane = Lane(make_model(), LaneTerms(), random.Random(1))
    for _ in range(10):
        lane.arrive()
        assert lane.place(1, NOW) is None
    shuts = [lane.failed(error, estimate=1, started_at=NOW, now=NOW + 0.1) for _ in range(10)]

    assert [shut is not None for shut in shuts] == [True] + [False] * 9
    shut = lane.shut_now(NOW + 0.2)
    assert shut is not None
    assert most / 2 <= round(shut.until - NOW - 0.1, 6) <= most
