"""How long to wait before trying again."""

import random
from datetime import timedelta


def full_jitter(failures: int, *, base: timedelta, cap: timedelta, rng: random.Random) -> timedelta:
    """A uniformly random wait between zero and `base` doubled per failure, at most `cap`.

    `failures` counts from 1. Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    ceiling = min(cap, base * float(2 ** min(failures - 1, 30)))
    return ceiling * rng.random()
