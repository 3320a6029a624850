"""Which feedback examples an iteration looks at. Pure."""

import math
from collections.abc import Sequence

from utilities.draws import draws


def minibatch(seed: int, examples: Sequence[str], size: int, number: int) -> tuple[str, ...]:
    """The batch with this number: every epoch goes once through all examples, in an order of its own.

    An epoch's last batch is filled up with the epoch's first examples. Never an example twice; fewer than `size` only
    where there are not more.
    """
    size = min(size, len(examples))
    if size == 0:
        return ()
    per_epoch = math.ceil(len(examples) / size)
    epoch, place = divmod(number, per_epoch)
    order = sorted(examples)
    draws(seed, "minibatch", epoch).shuffle(order)
    batch = order[place * size : (place + 1) * size]
    return tuple(batch + order[: size - len(batch)])


def some(seed: int, purpose: str, counter: int, examples: Sequence[str], count: int) -> tuple[str, ...]:
    """`count` different examples (fewer where there are not more)."""
    order = sorted(examples)
    return tuple(draws(seed, purpose, counter).sample(order, min(count, len(order))))
