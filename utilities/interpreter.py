"""The interpreter's own settings, for a service of many threads."""

import gc
import sys


def settle_interpreter() -> None:
    """Keeps the API answering beside busy worker loops (see docs/decisions/0008). When everything is built."""
    sys.setswitchinterval(1e-4)
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
