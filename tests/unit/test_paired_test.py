"""The paired test: what is luck is called luck, what is better is called better, the same way every time."""

import random

import pytest

from llm_optimizer.paired_test import DRAWS, paired_test


def differences(count: int, gain: float, seed: int) -> list[float]:
    """Right or wrong before and after, with so much more right afterwards."""
    generator = random.Random(seed)
    before = [float(generator.random() < 0.5) for _ in range(count)]
    return [float(generator.random() < 0.5 + gain) - one for one in before]


def test_small_cases_are_exact() -> None:
    """Five wins of five happen by luck once in 32 times; without any difference everything is luck."""
    assert paired_test([1.0] * 5, seed=1).p == pytest.approx(1 / 32, abs=0.006)
    assert paired_test([0.5, -0.5] * 4, seed=1).p == pytest.approx(0.64, abs=0.02)
    for nothing in ([], [0.0] * 9):
        test = paired_test(nothing, seed=1)
        assert (test.p, test.mean, test.enough) == (1.0, 0.0, None)


def test_equal_prompts_are_seldom_called_better() -> None:
    """Of 60 comparisons of equals about one in twenty is called proven, and no more."""
    called = sum(paired_test(differences(40, 0.0, seed), seed).proven(0.01) for seed in range(60))
    assert called <= 7


def test_a_real_gain_is_found() -> None:
    """A gain of 30 points on 60 pairs is found nearly always; its interval holds it and leaves zero out."""
    tests = [paired_test(differences(60, 0.3, seed), seed) for seed in range(20)]
    assert sum(test.proven(0.01) for test in tests) >= 18
    assert sum(test.low <= 0.3 <= test.high for test in tests) >= 17
    assert all((test.low > 0) == (test.p < 0.05) or abs(test.p - 0.05) < 0.05 for test in tests)


def test_it_is_the_same_for_the_same_seed() -> None:
    """A repeated test gives the same numbers, whichever process makes it."""
    gaps = differences(30, 0.1, 5)
    assert paired_test(gaps, 3) == paired_test(gaps, 3)
    assert paired_test(gaps, 3).p != paired_test(gaps, 4).p


def test_a_gain_below_the_least_is_not_worth_it() -> None:
    """Proven means a gain that matters: many tiny ones are certain and still too small."""
    test = paired_test([0.005] * 50, seed=1)
    assert test.p <= 2 / DRAWS
    assert not test.proven(0.01)
    assert test.proven(0.001)
