"""Jobs that were claimed and have not come to their model's lane yet."""

import random

import pytest

from engine.llm import CompletionRequest, Endpoint, QuotaExhausted, Usage
from engine.records.values import Limits
from llm_workers.corrections import Booked
from llm_workers.lane import Lane
from llm_workers.lane_terms import LaneTerms
from tests.support.factories import make_model

NOW = 100.0


def _reopened_at(lane: Lane) -> float:
    """The lane has just been shut by a used up quota; the instant at which calls are made again."""
    lane.arrive()
    assert lane.place(1, 0.0) is None
    shut = lane.failed(QuotaExhausted("no money", status=429), booked=Booked(1), started_at=0.0, now=0.0)
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


def _limited() -> Lane:
    return Lane(make_model(limits=Limits(tokens_per_minute=600_000)), LaneTerms(), random.Random(1))


def test_little_is_claimed_at_a_guess() -> None:
    """What a call takes is guessed before the first answer, and instants that were booked at a guess are lost: until
    then jobs are claimed for a quarter of the time."""
    lane = _limited()
    guessed = lane.room(NOW)
    request = CompletionRequest(endpoint=Endpoint(sdk="test", base_url="", deployment="m"), system="", user="x" * 900)
    lane.estimator.learn(request, Usage(input_tokens=300, output_tokens=300))
    assert lane.room(NOW) - guessed == pytest.approx(0.75 * 594_000 / 60.6 / 600, abs=1)


def test_calls_are_expected_until_they_come() -> None:
    """Whoever asks for instants may wait for the other jobs of a claim, but no longer than a second."""
    lane = _limited()
    lane.promise(2, NOW)
    lane.arrive()
    assert lane.expects(NOW)
    assert not lane.expects(NOW + 1.0)
    lane.arrive()
    assert not lane.expects(NOW)


@pytest.mark.parametrize(
    ("limits", "age", "asks"),
    [
        (Limits(), 0.01, True),
        (Limits(tokens_per_minute=9), 0.5, False),
        (Limits(requests_per_minute=9), 0.8, True),
        (Limits(requests_per_minute=9, concurrency=9), 0.01, True),
    ],
)
def test_who_has_just_asked_for_instants_has_heard_the_news(limits: Limits, age: float, asks: bool) -> None:
    """No query is made for what came with the last change of the same document, unless it renews a part."""
    lane = Lane(make_model(limits=limits), LaneTerms(), random.Random(1))
    lane.heard_at = NOW - age
    assert lane.needs_news(NOW) is asks
