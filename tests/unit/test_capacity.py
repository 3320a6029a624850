"""What replicas are granted of a model's limits, by the policy over the document that they share."""

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.llm import JsonObject
from engine.records.values import Limits
from llm_workers.capacity import Ask, Grant, Window, bookings, fair_parts, granted
from llm_workers.corrections import Correction

NOW = 1_800_000_000.0
WINDOW = Window()
MINUTE = 60.0


@dataclass
class Shared:
    """The document, and the calls that were started by it: when at the latest, and of how many tokens."""

    limits: Limits
    document: JsonObject = field(default_factory=dict)
    calls: list[tuple[float, int]] = field(default_factory=list)

    def ask(self, at: float, *estimates: int, delay: float = 0.0, **fields: Any) -> Grant:
        ask = Ask(**{"replica": "a", "estimates": estimates, **fields})
        self.document, grant = granted(self.document, ask, self.limits, NOW + at, WINDOW)
        assert list(grant.starts) == sorted(grant.starts)
        self.calls += [(start + delay, units) for start, units in zip(grant.starts, estimates, strict=False)]
        return grant


def fullest(calls: list[tuple[float, int]], seconds: float = MINUTE) -> tuple[int, int]:
    """The most calls, and the most tokens, of any so many seconds."""
    calls = sorted(calls)
    most, first, tokens, most_tokens = 0, 0, 0, 0
    for last, (at, units) in enumerate(calls):
        tokens += units
        while calls[first][0] <= at - seconds:
            tokens -= calls[first][1]
            first += 1
        most, most_tokens = max(most, last - first + 1), max(most_tokens, tokens)
    return most, most_tokens


MOMENTS = st.tuples(
    st.sampled_from([0.0, 0.01, 0.3, 2.0, 15.0, 59.0, 700.0]),
    st.integers(1, 40),
    st.integers(1, 1000),
    st.floats(0.0, 0.59),
    st.sampled_from(["a", "b", "c"]),
)


@settings(max_examples=150)
@given(st.integers(1, 300), st.integers(1, 3000), st.lists(MOMENTS, min_size=1, max_size=40))
def test_no_minute_holds_more_than_the_limits(
    requests: int, tokens: int, moments: list[tuple[float, int, int, float, str]]
) -> None:
    """Whatever is asked for, by whichever replica, of whatever sizes, with starts late by up to the slack: no minute
    anywhere has more requests or tokens than the limits."""
    shared = Shared(Limits(requests_per_minute=requests, tokens_per_minute=tokens))
    at = 0.0
    for gap, count, size, delay, replica in moments:
        at += gap
        shared.ask(at, *[min(size, tokens)] * count, delay=delay, replica=replica)

    most, most_tokens = fullest(shared.calls)
    assert most <= requests
    assert most_tokens <= tokens


@pytest.mark.parametrize(
    ("limits", "size", "limit"),
    [
        (Limits(requests_per_minute=3000), 1, 3000),
        (Limits(tokens_per_minute=600_000), 200, 3000),
        (Limits(requests_per_minute=3000, tokens_per_minute=600_000), 200, 3000),
    ],
)
def test_nearly_all_of_a_limit_is_used(limits: Limits, size: int, limit: int) -> None:
    """Where there is always something to call, over 97 % of what is allowed is called, by two replicas as by one."""
    shared = Shared(limits)
    for step in range(600):
        shared.ask(step / 2, *[size] * 200, replica="ab"[step % 2])

    steady = [at for at, _ in shared.calls if 60 <= at - NOW < 300]
    assert len(steady) / 4 >= 0.97 * limit
    assert fullest(shared.calls)[0] <= limit


def test_what_was_estimated_too_low_is_waited_for() -> None:
    """Tokens that were used beyond an estimate keep the next call waiting until there would have been room for them."""
    shared = Shared(Limits(tokens_per_minute=6000))
    shared.ask(0.0, 10)

    assert shared.ask(1.0, 10, correction=Correction(500)).starts == ()
    assert len(shared.ask(6.0, 10).starts) == 1


@pytest.mark.parametrize("seed", range(20))
def test_replicas_that_do_not_know_the_model_yet(seed: int) -> None:
    """Replicas that book thirty times what a call uses until their first answers come, and what it uses from then on,
    keep every window within the limit."""
    rng, window = random.Random(seed), Window(seconds=3.0, slack=0.6)
    document: JsonObject = {}
    calls: list[tuple[float, int]] = []
    known_at = {"a": NOW + rng.uniform(1, 8), "b": NOW + rng.uniform(1, 8)}
    at = NOW
    while at < NOW + 20:
        replica = rng.choice("ab")
        estimate = 18 if at > known_at[replica] else 540
        ask = Ask(replica=replica, estimates=[estimate] * rng.randint(1, 20))
        document, grant = granted(document, ask, Limits(tokens_per_minute=2160), at, window)
        calls += [(start + rng.uniform(0, 0.59), 18) for start in grant.starts]
        at += rng.uniform(0, 0.5)

    assert fullest(calls, 3.0)[1] <= 2160


def test_a_call_larger_than_its_limit() -> None:
    """It counts as all of the limit and is made every three minutes, rather than never."""
    shared = Shared(Limits(tokens_per_minute=100))
    starts = [start for step in range(1200) for start in shared.ask(step / 2, 5000).starts]

    assert [round((start - NOW) / 60) for start in starts] == [0, 3, 6, 9]


def test_a_limit_that_is_not_set() -> None:
    """Where neither requests nor tokens are limited calls start at once, and nothing is booked."""
    grant = Shared(Limits(concurrency=3)).ask(0.0, *[10] * 50)

    assert grant.starts == (NOW,) * 50
    assert (grant.requests_free_at, grant.tokens_free_at) == (None, None)


def test_beyond_the_horizon() -> None:
    """Calls that would have to start later than is of use are granted nothing, and take nothing of the limit."""
    shared = Shared(Limits(requests_per_minute=60))

    assert len(shared.ask(0.0, *[1] * 50, horizon=3).starts) == 3
    assert shared.ask(0.0, *[1] * 50, horizon=3).starts == ()
    assert len(shared.ask(3.1, *[1] * 50, horizon=0).starts) == 1


@dataclass
class Replica:
    """One that starts calls where it may, and asks."""

    name: str
    part: int = 0
    running: int = 0

    def ask(self, shared: Shared, at: float, wanted: int) -> None:
        grant = shared.ask(at, replica=self.name, running=self.running, wanted=wanted)
        assert grant.concurrency is not None
        self.part = grant.concurrency


TURNS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(0, 30), st.floats(0.0, 1.0)), min_size=1, max_size=60
)


@given(st.integers(1, 20), TURNS)
def test_concurrency_is_never_exceeded(limit: int, turns: list[tuple[int, int, int, float]]) -> None:
    """However replicas ask, start and end calls: together they never have more running than the limit."""
    shared = Shared(Limits(concurrency=limit))
    replicas = [Replica(name) for name in "abcd"]
    at = 0.0
    for number, ended, wanted, gap in turns:
        at += gap / 5  # so that nobody's part lapses while it has calls running
        one = replicas[number]
        one.running = max(0, one.running - ended)
        one.ask(shared, at, wanted)
        one.running = max(one.running, min(one.part, wanted))
        assert sum(each.running for each in replicas) <= limit


def test_late_comers_get_their_share() -> None:
    """One that has the whole limit running gives half of it to another as its calls end, without a break in between."""
    shared = Shared(Limits(concurrency=10))
    first, second = Replica("a"), Replica("b")
    for step in range(20):
        at = step / 2
        for each in (first, second) if step >= 2 else (first,):
            each.running = max(0, each.running - 1)
            each.running = max(each.running, min(10, each.part))
            each.ask(shared, at, wanted=10)
        if step == 1:
            assert first.part == 10

    assert (first.part, first.running) == (5, 5)
    assert (second.part, second.running) == (5, 5)


def test_the_part_of_a_silent_replica_lapses() -> None:
    """A replica that says nothing any more for fifteen seconds has lost its part to the others."""
    shared = Shared(Limits(concurrency=10))
    shared.ask(0.0, replica="dead", running=10, wanted=10)

    assert shared.ask(14.9, replica="a", wanted=10).concurrency == 0
    assert shared.ask(15.1, replica="a", wanted=10).concurrency == 10


def test_an_idle_replica_leaves_its_part() -> None:
    """One that wants nothing holds nothing, and is not kept in the document."""
    shared = Shared(Limits(concurrency=10))
    shared.ask(0.0, replica="a", running=0, wanted=10)
    shared.ask(0.1, replica="a", running=0, wanted=0)

    assert shared.document["holders"] == {}


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 50), min_size=1), st.integers(0, 100))
def test_fair_parts(wants: dict[str, int], total: int) -> None:
    """Nothing is left over while somebody wants it, and nobody has more than one above another who wants more."""
    parts = fair_parts(wants, total)

    assert sum(parts.values()) == min(total, sum(wants.values()))
    for name, part in parts.items():
        assert 0 <= part <= wants[name]
        assert part == wants[name] or max(parts.values()) <= part + 1


def test_how_far_limits_are_booked() -> None:
    """It is told without asking, and when the next call may start."""
    shared = Shared(Limits(requests_per_minute=60, tokens_per_minute=6000))
    shared.ask(0.0, 1000)

    booked = bookings(shared.document, shared.limits, NOW, WINDOW)

    assert booked["requests"][0] == booked["requests"][1] == pytest.approx(NOW + 1.01)
    assert booked["tokens"][0] > booked["tokens"][1] > NOW + 9
    assert shared.ask(0.0, 1, horizon=60).starts[0] == pytest.approx(booked["tokens"][1])
