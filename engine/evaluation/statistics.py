"""How sure a mean is, and whether two evaluations differ. Pure, and the same for the same values and seed.

Bootstrap percentile intervals: Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13. Permutation test:
Fisher's randomization of matched pairs. If both sides were equally good, each difference could as well have had the
other sign: how often a random choice of signs gives at least the mean that was seen is the chance of seeing it by luck.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from utilities.draws import generator

if TYPE_CHECKING:
    import numpy

    Numbers = numpy.typing.NDArray[numpy.float64]

DRAWS = 10_000
RESAMPLES = 2_000
LEVEL = 0.05
MOST_UNSCORED = 0.2
"""The share of answers that may lack a score where something is to follow from the others: what lacks one may not be as
what has one."""

_MOST_NUMBERS = 100_000_000
"""Of one test or interval: beyond it fewer samples are drawn, at least a hundredth."""

_AT_ONCE = 2_000_000
_THRESHOLD, _POWER = 1.6449, 0.8416
"""Standard errors: of a one-sided test at LEVEL, and above it of a gain that is found four times in five."""

_LEAST_LEVEL = 1e-9


@dataclass(frozen=True, slots=True)
class Interval:
    """Of a mean, with 95 % confidence."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """What `count` differences say. `p` is one-sided: the chance that a mean so high is luck.

    `enough` is how many pairs would decide four times in five about a gain of this size, None where there is none.
    """

    count: int
    mean: float
    interval: Interval | None
    p: float
    wins: int
    losses: int
    enough: int | None

    def proves(self, least: float = 0.0, level: float = LEVEL) -> bool:
        """Whether a mean gain of at least `least` was seen and is hardly luck: that of `level` at most."""
        return self.count > 0 and self.p < level and self.mean > 0 and self.mean >= least


def interval_of(values: Sequence[float], seed: int | str) -> Interval | None:
    """Where the mean of all such values lies; None where there are none. Weighted ones: `weighted_interval`."""
    return weighted_interval(values, [1.0] * len(values), seed)


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float | None:
    """None where nothing has a weight."""
    total = math.fsum(weights)
    return math.fsum(map(float.__mul__, map(float, values), map(float, weights))) / total if total > 0 else None


def weighted_interval(values: Sequence[float], weights: Sequence[float], seed: int | str) -> Interval | None:
    """Of the weighted mean; pairs of value and weight are drawn together."""
    import numpy  # noqa: PLC0415 - slow to import, and not every process needs it

    if not values or math.fsum(weights) <= 0:
        return None
    numbers, shares = numpy.asarray(values, dtype=float), numpy.asarray(weights, dtype=float)
    random = generator(seed, "bootstrap", 0)
    means: list[float] = []
    for size in _chunks(RESAMPLES, len(values)):
        drawn = random.integers(0, len(values), size=(size, len(values)))
        totals = shares[drawn].sum(axis=1)
        sums = (numbers * shares)[drawn].sum(axis=1)
        means += (sums[totals > 0] / totals[totals > 0]).tolist()
    low, high = numpy.quantile(means, (0.025, 0.975))
    return Interval(float(low), float(high))


def paired(
    differences: Sequence[float],
    seed: int | str,
    *,
    weights: Sequence[float] | None = None,
    level: float = LEVEL,
) -> Paired:
    """Of each item's score minus the one it is compared with; `enough` is for a test at `level`.

    With `weights`, one for each difference, the mean is the weighted one, and the signs are those of weighted ones.
    """
    scaled = differences if weights is None else scaled_to_mean(differences, weights)
    mean = math.fsum(scaled) / len(scaled) if scaled else 0.0
    weighted = None if weights is None else weighted_interval(differences, weights, seed)
    return Paired(
        count=len(differences),
        mean=mean,
        interval=interval_of(differences, seed) if weights is None else weighted,
        p=sign_flip_p(scaled, seed),
        wins=sum(each > 0 for each in differences),
        losses=sum(each < 0 for each in differences),
        enough=pairs_to_decide(scaled, level),
    )


def scaled_to_mean(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Each value times its weight over the mean weight, so that their plain mean is the weighted one."""
    total = math.fsum(weights)
    if total <= 0:
        return [0.0] * len(values)
    share = len(values) / total
    return [value * weight * share for value, weight in zip(values, weights, strict=True)]


def sign_flip_p(differences: Sequence[float], seed: int | str) -> float:
    """One-sided, by DRAWS random choices of signs. One is added to both counts: nothing is ever said to be impossible.

    Differences of zero have no sign and leave the sums as they are.
    """
    import numpy  # noqa: PLC0415 - as above

    sizes = numpy.abs(numpy.asarray([each for each in differences if each], dtype=float))
    if not len(sizes):
        return 1.0
    least = (math.fsum(differences) + math.fsum(sizes)) / 2 - 1e-9
    random = generator(seed, "sign-flip", 0)
    as_good = draws = 0
    for size in _chunks(DRAWS, len(sizes)):
        signs = random.integers(0, 2, size=(size, len(sizes)), dtype=numpy.uint8)
        as_good += int((signs @ sizes >= least).sum())
        draws += size
    return (as_good + 1) / (draws + 1)


def pairs_to_decide(differences: Sequence[float], level: float = LEVEL) -> int | None:
    """By the normal approximation of the test."""
    count = len(differences)
    mean = math.fsum(differences) / count if count else 0.0
    if mean <= 0 or count < 2:
        return None
    variance = math.fsum((each - mean) ** 2 for each in differences) / (count - 1)
    threshold = _THRESHOLD if level == LEVEL else NormalDist().inv_cdf(1 - max(level, _LEAST_LEVEL))
    return max(math.ceil((threshold + _POWER) ** 2 * variance / mean**2), 1)


def _chunks(samples: int, values: int) -> list[int]:
    """How many samples of so many values to draw at once, until there are enough."""
    wanted = max(min(samples, _MOST_NUMBERS // values), samples // 100)
    step = max(_AT_ONCE // values, 1)
    return [min(step, wanted - done) for done in range(0, wanted, step)]
