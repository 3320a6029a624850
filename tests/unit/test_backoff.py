"""How long to wait before trying again."""

import random
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from utilities.backoff import full_jitter

SECOND = timedelta(seconds=1)


class Always(random.Random):
    """A source of chance that always answers the same."""

    def __init__(self, answer: float) -> None:
        super().__init__(0)
        self._answer = answer

    def random(self) -> float:
        return self._answer


def test_the_ceiling_doubles_up_to_the_cap() -> None:
    """The longest possible wait doubles with every failure and stops at the cap."""
    waits = [
        full_jitter(failures, base=SECOND, cap=10 * SECOND, rng=Always(1.0)).total_seconds() for failures in range(1, 7)
    ]
    assert waits == [1, 2, 4, 8, 10, 10]


def test_all_of_the_range_is_used() -> None:
    """Full jitter: the wait may be anything from nothing up, half of the ceiling on average."""
    rng = random.Random(1)
    waits = [full_jitter(3, base=SECOND, cap=60 * SECOND, rng=rng).total_seconds() for _ in range(2000)]
    assert min(waits) < 0.05
    assert max(waits) > 3.95
    assert 1.9 < sum(waits) / len(waits) < 2.1


@given(failures=st.integers(1, 10**6), base=st.floats(0.001, 100), cap=st.floats(0.001, 10_000), seed=st.integers())
def test_a_wait_is_never_longer_than_the_cap(failures: int, base: float, cap: float, seed: int) -> None:
    """However many failures there were, the wait lies between zero and the cap, and nothing overflows."""
    longest = timedelta(seconds=cap)
    wait = full_jitter(failures, base=timedelta(seconds=base), cap=longest, rng=random.Random(seed))
    assert timedelta(0) <= wait <= longest
