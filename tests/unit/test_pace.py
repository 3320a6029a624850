"""How fast a model is asked, as it is learned from how it answers."""

import math

import pytest

from engine.llm import Level
from llm_workers.pace import Breaker, BreakerState, Concurrency, Levels


def answered(concurrency: Concurrency, rounds: int) -> None:
    """So many rounds of answers, each as large as the window is at its beginning."""
    for _ in range(rounds):
        for _ in range(int(min(concurrency.window, 1000))):
            concurrency.succeeded()


def test_concurrency_is_unbounded_until_a_call_fails() -> None:
    """Answers alone bound nothing; a failure leaves half of what was running, at least one."""
    concurrency = Concurrency()
    answered(concurrency, 1)
    assert concurrency.window == math.inf

    concurrency.failed(started_at=0.0, running=40, now=1.0)
    assert concurrency.window == 20
    for at in range(2, 12):
        concurrency.failed(started_at=at, running=1, now=at)
    assert concurrency.window == 1


def test_a_burst_of_failures_counts_once() -> None:
    """Calls that had started before the last cut say nothing new when they fail too."""
    concurrency = Concurrency()
    for number in range(40):
        concurrency.failed(started_at=0.5, running=40 - number, now=1.0 + number / 100)

    assert concurrency.window == 20


def test_concurrency_goes_up_a_sixteenth_a_round() -> None:
    """After a failure it takes about eight rounds of answers back to what ran before, and then nothing bounds."""
    concurrency = Concurrency()
    concurrency.failed(started_at=0.0, running=64, now=1.0)
    answered(concurrency, 4)
    assert 44 <= concurrency.window <= 48

    answered(concurrency, 5)
    assert concurrency.window == math.inf


def test_concurrency_starts_slowly_after_a_pause() -> None:
    """One call at first, doubled each round up to half of what ran before the pause, then more slowly."""
    concurrency = Concurrency()
    concurrency.restart(now=1.0, busiest=64)
    windows = []
    for _ in range(7):
        windows.append(concurrency.window)
        answered(concurrency, 1)

    assert windows[:6] == [1, 2, 4, 8, 16, 32]
    assert 32 < windows[6] < 40


def calls(breaker: Breaker, outcomes: str, at: float = 0.0) -> list[float]:
    """Calls a tenth of a second apart, `.` for an answer and `x` for a failure; how long it opened for each time."""
    opened = [breaker.record(at + number / 10, failed=each == "x") for number, each in enumerate(outcomes)]
    return [seconds for seconds in opened if seconds is not None]


@pytest.mark.parametrize(
    ("outcomes", "opens"),
    [
        ("x" * 19, False),
        ("x" * 20, True),
        (".x" * 10, True),
        ("x" * 10 + "." * 11 + "x", True),
        (".." + "x." * 30, False),
    ],
)
def test_breaker_opens_on_the_share_that_failed(outcomes: str, opens: bool) -> None:
    """It opens when half of at least twenty calls have failed, and only then."""
    breaker = Breaker()

    assert calls(breaker, outcomes) == ([5.0] if opens else [])
    assert breaker.state is (BreakerState.OPEN if opens else BreakerState.CLOSED)


def test_breaker_looks_at_half_a_minute() -> None:
    """Failures of more than thirty seconds ago count neither for opening nor for the error rate."""
    breaker = Breaker()
    calls(breaker, "x" * 19)
    assert breaker.error_rate(30.0) == 1.0

    assert breaker.record(40.0, failed=True) is None
    calls(breaker, "...", at=41.0)
    assert breaker.error_rate(42.0) == 0.25
    assert breaker.error_rate(100.0) == 0.0


def test_breaker_remembers_no_more_than_its_window() -> None:
    """A model that never fails costs no memory that grows with its calls."""
    breaker = Breaker()
    for number in range(10_000):
        breaker.record(float(number), failed=False)

    assert len(breaker._calls) <= 32


def test_breaker_closes_after_three_good_probes() -> None:
    """When the pause is over calls are probes; three answers close it, and what was before is forgotten."""
    breaker = Breaker()
    calls(breaker, "x" * 20)
    breaker.try_again(7.0)
    assert breaker.state is BreakerState.HALF_OPEN

    assert calls(breaker, "..", at=7.0) == []
    assert breaker.state is BreakerState.HALF_OPEN
    calls(breaker, ".", at=8.0)
    assert (breaker.state, breaker.error_rate(8.0)) == (BreakerState.CLOSED, 0.0)
    assert calls(breaker, "x" * 19, at=9.0) == []


def test_breaker_pauses_longer_each_time() -> None:
    """A probe that fails opens it again for twice as long, up to a minute; once closed it begins with five seconds."""
    breaker = Breaker()
    pauses = calls(breaker, "x" * 20)
    for at in range(10, 16):
        breaker.try_again(float(at))
        pauses += calls(breaker, "x", at=float(at))
    assert pauses == [5, 10, 20, 40, 60, 60, 60]

    breaker.try_again(20.0)
    calls(breaker, "...", at=20.0)
    assert calls(breaker, "x" * 20, at=21.0) == [5]


def test_breaker_takes_no_late_call_for_a_probe() -> None:
    """Calls that had started before the pause was over neither open nor close it, however they end."""
    breaker = Breaker()
    calls(breaker, "x" * 20)
    breaker.try_again(7.0)

    assert breaker.record(8.0, failed=True, started_at=1.0) is None
    for _ in range(3):
        breaker.record(8.0, failed=False, started_at=1.0)
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.record(8.0, failed=True, started_at=7.0) == 10


def level(kind: str = "requests", limit: int = 60, remaining: int = 0, resets_in: float = 60.0) -> Level:
    return Level(kind=kind, limit=limit, remaining=remaining, resets_in=resets_in)


def test_nothing_announced_bounds_nothing() -> None:
    """Without levels no call waits."""
    levels = Levels()
    levels.take(100, 0.0)

    assert levels.wait(100, 0.0) == 0
    assert levels.starts_within(100, 0.0, 1.0) == math.inf


def test_an_announced_level_fills_up_again() -> None:
    """What is missing comes back evenly until the reset; a call waits until there is enough for it."""
    levels = Levels()
    levels.announced(level(remaining=0), 0.0)

    assert levels.wait(1, 0.0) == pytest.approx(1.0)
    assert levels.wait(1, 0.5) == pytest.approx(0.5)
    assert levels.wait(1, 1.0) == 0
    assert levels.starts_within(1, 0.0, 3.0) == pytest.approx(3.0)


def test_what_is_sent_counts_against_a_level() -> None:
    """Calls take from what was left, by requests and by tokens, whichever is scarcer."""
    levels = Levels()
    levels.announced(level(remaining=50), 0.0)
    levels.announced(level("tokens", limit=600, remaining=300, resets_in=30.0), 0.0)
    assert levels.starts_within(100, 0.0, 0.0) == 3

    for _ in range(3):
        assert levels.wait(100, 0.0) == 0
        levels.take(100, 0.0)
    assert levels.wait(100, 0.0) == pytest.approx(10.0)


@pytest.mark.parametrize(
    "told", [level(remaining=60), level(remaining=0, resets_in=0.0), level(remaining=90, resets_in=5.0)]
)
def test_a_limit_that_is_whole(told: Level) -> None:
    """A level at its limit, or whose reset is now, holds no call up."""
    levels = Levels()
    levels.announced(told, 0.0)

    assert levels.wait(1, 0.0) == 0


def test_no_call_waits_beyond_the_reset() -> None:
    """A call that is larger than the limit waits until that is whole, and no longer."""
    levels = Levels()
    levels.announced(level("tokens", limit=100, remaining=40, resets_in=6.0), 0.0)

    assert levels.wait(5000, 0.0) == pytest.approx(6.0)
    assert levels.wait(5000, 6.0) == 0


def test_the_latest_level_stands() -> None:
    """What is announced later takes the place of what was known of its kind."""
    levels = Levels()
    levels.announced(level(remaining=0), 0.0)
    levels.announced(level(remaining=30), 0.1)

    assert levels.wait(1, 0.1) == 0
