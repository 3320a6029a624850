"""Random draws that can be repeated: a generator depends on a seed, a purpose and a counter, and on nothing else.

There is no generator to keep between two draws, so nothing has to be stored and restored for an exact resume. Sort what
you draw from: a set's order differs between processes.
"""

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy


def draws(seed: int | str, purpose: str, counter: int) -> random.Random:
    """A fresh generator, the same in every process for the same three arguments."""
    return random.Random(_number(seed, purpose, counter))


def generator(seed: int | str, purpose: str, counter: int) -> "numpy.random.Generator":
    """The same, for draws by the thousand."""
    import numpy  # noqa: PLC0415 - slow to import, and few need it

    return numpy.random.Generator(numpy.random.PCG64(_number(seed, purpose, counter)))


def _number(seed: int | str, purpose: str, counter: int) -> int:
    text = "\x1f".join((type(seed).__name__, str(seed), purpose, str(counter)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
