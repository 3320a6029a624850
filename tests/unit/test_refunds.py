"""What is given back of a limit: what calls have not used, and never so much that a window could hold too much."""

import random
from collections.abc import Sequence

from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.llm import JsonObject
from engine.records.values import Limits
from llm_workers.capacity import Ask, Window, granted
from llm_workers.corrections import Booked, Correction, Corrections
from llm_workers.refunds import Bookings, bookings_of
from tests.unit.test_capacity import NOW, fullest

CALLS = st.tuples(
    st.sampled_from([0.0, 0.01, 0.3, 2.0, 15.0, 59.0, 700.0]),
    st.integers(1, 40),
    st.integers(1, 300),
    st.floats(0.0, 1.0),
    st.integers(0, 60),
)


def held(calls: Sequence[tuple[float, float]], at: float) -> float:
    """What a bucket that loses one unit a second holds of (instant, units)."""
    level, last = 0.0, 0.0
    for start, units in calls:
        level, last = max(level - (start - last), 0.0) + units, start
    return max(level - (at - last), 0.0)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 30), st.integers(0, 30)), max_size=60), st.randoms())
def test_a_bucket_holds_what_it_would_hold_had_it_been_known(
    calls: list[tuple[float, int, int]], rng: random.Random
) -> None:
    """In whatever order calls turn out to be smaller than booked, the bucket never holds less than one that was filled
    with what they used, and as much where it has never been empty."""
    bookings, given_back, at = Bookings(0), 0.0, 0.0
    booked: list[tuple[float, float]] = []
    numbers = []
    for gap, units, _ in calls:
        at += gap
        numbers.append(bookings.booked(held(booked, at)))
        booked.append((at, units))
    used = [(start, float(min(use, units))) for (start, units), (_, _, use) in zip(booked, calls, strict=True)]
    for place in rng.sample(range(len(calls)), len(calls)):
        given_back += bookings.give_back(numbers[place], booked[place][1] - used[place][1])
        assert all(low >= 0 for _, low in bookings.lows)
    assert held(booked, at) - given_back >= held(used, at) - 1e-6
    if all(held(used[:place], start) > 0 for place, (start, _) in enumerate(used) if place):
        assert len(calls) > 32 or abs(held(booked, at) - given_back - held(used, at)) < 1e-6


@settings(max_examples=150)
@given(st.integers(300, 3000), st.lists(CALLS, min_size=1, max_size=40))
@example(600, [(0.0, 40, 300, 0.1, 1)] * 3 + [(15.0, 40, 30, 1.0, 3)] * 9)
def test_no_minute_holds_more_than_was_allowed(tokens: int, moments: list[tuple[float, int, int, float, int]]) -> None:
    """Calls that use less than was booked for them, told however late, never let a minute hold more than its limit."""
    document: JsonObject = {}
    told: list[tuple[int, int, int]] = []
    calls: list[tuple[float, int]] = []
    at = NOW
    for turn, (gap, count, size, share, late) in enumerate(moments):
        at += gap
        ready = tuple((number, unused) for due, number, unused in told if due <= turn)
        told = [each for each in told if each[0] > turn]
        ask = Ask(replica="a", estimates=[size] * count, correction=Correction(unused=ready))
        document, grant = granted(document, ask, Limits(tokens_per_minute=tokens), at, Window())
        used = int(size * share)
        calls += [(start, used) for start in grant.starts]
        told += [(turn + 1 + late, number, size - used) for number in grant.bookings]
    assert fullest(calls)[1] <= tokens


def test_what_was_not_used_lets_calls_start_earlier() -> None:
    """Calls that were booked at ten times of what they use hold nobody up once that is known."""
    limits, document = Limits(tokens_per_minute=60_000), {}
    document, first = granted(document, Ask(replica="a", estimates=[100] * 5), limits, NOW, Window())
    assert first.starts == (NOW,) * 5
    unused = tuple((number, 90) for number in first.bookings)
    ask = Ask(replica="a", estimates=[20] * 30, correction=Correction(unused=unused))
    _, second = granted(document, ask, limits, NOW, Window())
    assert [start > NOW for start in second.starts] == [False] * 27 + [True] * 3
    assert second.kept == 0


def test_a_bucket_that_was_empty_gives_nothing_back() -> None:
    """Time that went by unused is not used twice; what cannot be given back is told to the replica, which sets it
    against later excess, up to some calls' worth."""
    limits, document, corrections = Limits(tokens_per_minute=60_000), {}, Corrections()
    document, first = granted(document, Ask(replica="a", estimates=[600]), limits, NOW, Window())
    document, _ = granted(document, Ask(replica="a", estimates=[600]), limits, NOW + 30, Window())
    corrections.ended(Booked(600, first.bookings[0]), 20)
    ask = Ask(replica="a", correction=corrections.take())
    document, grant = granted(document, ask, limits, NOW + 31, Window())
    assert grant.kept == 580
    corrections.kept(grant.kept)
    corrections.ended(Booked(20), 90)
    assert corrections.take() == Correction()
    corrections.ended(Booked(20), 400)
    assert corrections.take().excess == 380 - 10


def test_bookings_of_a_document_that_was_forgotten() -> None:
    """Numbers go on where the clock is, so that a call of before is older than all that were booked since."""
    before = bookings_of({}, NOW)
    number = before.booked(0.0)
    after = bookings_of({}, NOW + 100)
    after.booked(0.0)
    assert after.give_back(number, 50.0) == 0.0
    assert bookings_of(after.as_document(), NOW + 200) == after


def test_what_may_have_been_told_is_not_told_again() -> None:
    """After a failure of the storage excess is booked once more, since that is safe, and nothing given back twice."""
    corrections = Corrections()
    corrections.ended(Booked(10, 1), 4)
    corrections.ended(Booked(10, 2), 25)
    taken = corrections.take()
    assert taken == Correction(15, ((1, 6),))
    corrections.not_told(taken)
    assert corrections.take() == Correction(15)
