"""engine.evaluation.statistics: intervals, the paired test, and how many pairs would decide."""

import time

import pytest

from engine.evaluation.statistics import (
    interval_of,
    paired,
    pairs_to_decide,
    sign_flip_p,
    weighted_interval,
    weighted_mean,
)
from utilities.draws import draws


def _noise(count: int, mean: float, seed: int) -> list[float]:
    random = draws(seed, "noise", 0)
    return [random.gauss(mean, 0.3) for _ in range(count)]


def test_the_test_keeps_its_level() -> None:
    """Of 200 comparisons of equals about one in twenty looks real; of 50 of a clear gain nearly all do."""
    by_luck = sum(sign_flip_p(_noise(30, 0.0, seed), seed) < 0.05 for seed in range(200))
    assert 3 <= by_luck <= 20
    assert sum(paired(_noise(60, 0.15, seed), seed).proves() for seed in range(50)) >= 45


def test_the_interval_covers() -> None:
    """About 95 of 100 intervals hold the true mean."""
    intervals = [interval_of(_noise(40, 0.5, seed), seed) for seed in range(100)]
    held = [each for each in intervals if each is not None and each.low <= 0.5 <= each.high]
    assert 88 <= len(held) <= 99


def test_the_same_seed_says_the_same() -> None:
    """Everything is a function of values and seed."""
    values = _noise(25, 0.1, 1)
    assert paired(values, 7) == paired(values, 7)
    assert interval_of(values, 7) != interval_of(values, 8)


def test_weighted_pairs() -> None:
    """A pair of weight 3 is worth three; equal weights change nothing, whatever they are; nothing weighs nothing."""
    values = _noise(25, 0.1, 1)
    plain, heavy = paired(values, 7), paired(values, 7, weights=[2.5] * 25)
    assert heavy.mean == pytest.approx(plain.mean)
    assert (heavy.p, heavy.enough, heavy.wins) == (plain.p, plain.enough, plain.wins)
    assert paired([1.0, -1.0], 7, weights=[3.0, 1.0]).mean == pytest.approx(0.5)
    assert paired([1.0, -1.0], 7, weights=[0.0, 0.0]).mean == 0.0
    assert not paired([1.0] * 9 + [-1.0], 7, weights=[1.0] * 9 + [9.0]).proves()
    assert (paired(values, 7, level=0.005).enough or 0) > (plain.enough or 0)


def test_p_is_that_of_all_signs() -> None:
    """For three equal gains one of the eight choices of signs is as good: p is near 1/8. Zeros change nothing."""
    assert sign_flip_p([1.0, 1.0, 1.0], 1) == pytest.approx(1 / 8, abs=0.01)
    assert sign_flip_p([1.0, 0.0, 1.0, 0.0, 1.0], 1) == pytest.approx(1 / 8, abs=0.01)
    assert sign_flip_p([-1.0, -1.0, -1.0], 1) == pytest.approx(1.0)


@pytest.mark.parametrize("values", [[], [0.0, 0.0, 0.0]])
def test_nothing_proves_nothing(values: list[float]) -> None:
    """No pairs, or none that differs: nothing is proven and no number of pairs is promised."""
    found = paired(values, 1)
    assert (found.p, found.enough, found.proves()) == (1.0, None, False)
    assert (found.interval is None) == (not values)


def test_how_many_would_decide() -> None:
    """A gain as large as its scatter is found with (1.645 + 0.842)² = 6.2 pairs four times in five: so seven."""
    assert pairs_to_decide([0.0, 2.0, 1.0 - 2**-0.5, 1.0 + 2**-0.5]) == 7
    assert pairs_to_decide([-1.0, 0.5]) is None


def test_weights_count() -> None:
    """An item of weight 3 counts as three of weight 1; what has no weight has no mean."""
    assert weighted_mean([1.0, 0.0], [3.0, 1.0]) == 0.75
    assert weighted_mean([1.0], [0.0]) is None
    assert weighted_interval([1.0], [0.0], 1) is None
    interval = weighted_interval([1.0, 0.0, 1.0, 0.0], [100.0, 0.001, 100.0, 0.001], 1)
    assert interval is not None
    assert interval.high > 0.99


def test_large_ones_are_quick() -> None:
    """Fifty thousand pairs are tested within seconds, by fewer draws."""
    values = _noise(50_000, 0.002, 1)
    began = time.monotonic()
    assert paired(values, 1).count == 50_000
    assert time.monotonic() - began < 20
