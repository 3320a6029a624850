"""Taking turns at a database that may be away."""

import threading
from contextlib import suppress

import pytest

from engine.errors import StorageUnavailable
from engine.storage.mongo.turns import Turns


def test_who_waited_for_an_outage_is_told_of_it() -> None:
    """The one whose turn comes after an outage does not find out anew; who asks afterwards tries again."""
    inside, go, refused = threading.Event(), threading.Event(), threading.Event()
    asked: list[float] = []

    def clock() -> float:
        asked.append(0.0)
        return float(len(asked))

    turns = Turns(clock)

    def fail() -> None:
        with suppress(StorageUnavailable), turns.taken():
            inside.set()
            assert go.wait(10)
            raise StorageUnavailable("away", retry_after=7.0)

    def wait() -> None:
        with pytest.raises(StorageUnavailable) as refusal, turns.taken():
            raise AssertionError("its turn came")
        assert refusal.value.retry_after == 7.0
        refused.set()

    first, second = threading.Thread(target=fail), threading.Thread(target=wait)
    first.start()
    assert inside.wait(10)
    second.start()
    while len(asked) < 2:
        inside.wait(0)
    go.set()
    first.join(10)
    second.join(10)
    assert refused.is_set()
    with turns.taken():
        refused.clear()


def test_other_errors_are_nobody_elses() -> None:
    """What goes wrong for another reason than an outage leaves the next one's turn alone."""
    turns = Turns(lambda: 1.0)
    with pytest.raises(ValueError, match="mine"), turns.taken():
        raise ValueError("mine")
    with turns.taken():
        assert turns
