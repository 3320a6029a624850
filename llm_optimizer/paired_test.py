"""Whether one prompt is better than another on the same examples: the paired sign-flip test and its interval. Pure.

Under the hypothesis that the two are equally good, each difference could as well have had the other sign: how often a
random choice of signs gives at least the mean that was seen is the probability of seeing it by luck.
Source: Fisher's randomization test for matched pairs; Efron and Tibshirani, "An Introduction to the Bootstrap", ch. 15.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from utilities.draws import draws

DRAWS = 10_000
LEVEL = 0.05
_POWER = 0.8416
"""How many standard errors above the threshold a mean lies that is found four times in five."""

_THRESHOLD = 1.6449
_RESAMPLES = 2_000
_BITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest:
    """Of `count` differences. `p` is one-sided, `low` and `high` bound the mean with 95 % confidence.

    `enough` is how many pairs would decide about a gain of this size four times in five; None where there is no gain.
    """

    count: int
    mean: float
    p: float
    low: float
    high: float
    wins: int
    losses: int
    enough: int | None

    def proven(self, least: float) -> bool:
        """Whether the mean gain is at least `least` and hardly luck."""
        return self.count > 0 and self.p < LEVEL and self.mean >= least


def paired_test(differences: Sequence[float], seed: int) -> PairedTest:
    """The same for the same differences and seed."""
    if not differences:
        return PairedTest(count=0, mean=0.0, p=1.0, low=0.0, high=0.0, wins=0, losses=0, enough=None)
    mean = fmean(differences)
    low, high = _interval(differences, seed)
    return PairedTest(
        count=len(differences),
        mean=mean,
        p=_by_luck(differences, seed),
        low=low,
        high=high,
        wins=sum(each > 0 for each in differences),
        losses=sum(each < 0 for each in differences),
        enough=_enough(differences, mean),
    )


def _by_luck(differences: Sequence[float], seed: int) -> float:
    """Differences of zero have no sign. One is added to both counts, so that it is never said to be impossible."""
    sizes = [abs(each) for each in differences if each]
    least = (math.fsum(differences) + math.fsum(sizes)) / 2 - 1e-9
    tables = [_sums(sizes[start : start + _BITS]) for start in range(0, len(sizes), _BITS)]
    generator = draws(seed, "sign-flip", 0)
    as_good = 0
    for _ in range(DRAWS):
        signs = generator.randbytes(len(tables))
        as_good += sum(table[byte] for table, byte in zip(tables, signs, strict=True)) >= least
    return (as_good + 1) / (DRAWS + 1)


def _sums(sizes: Sequence[float]) -> list[float]:
    """What is positive in all, for every choice of signs of up to eight differences."""
    return [sum(size for place, size in enumerate(sizes) if signs >> place & 1) for signs in range(1 << _BITS)]


def _interval(differences: Sequence[float], seed: int) -> tuple[float, float]:
    generator = draws(seed, "bootstrap", 0)
    count = len(differences)
    means = sorted(math.fsum(generator.choices(differences, k=count)) / count for _ in range(_RESAMPLES))
    return means[round(0.025 * (_RESAMPLES - 1))], means[round(0.975 * (_RESAMPLES - 1))]


def _enough(differences: Sequence[float], mean: float) -> int | None:
    if mean <= 0 or len(differences) < 2:
        return None
    return math.ceil(((_THRESHOLD + _POWER) * stdev(differences) / mean) ** 2)
