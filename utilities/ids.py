"""Identifiers: 24 hex characters in ObjectId form, rising in the order they are made."""

import os
import re
import threading
import time
import uuid

_FORM = re.compile(r"[0-9a-f]{24}")
_COUNTER_BITS = 24
_RANDOM_BITS = 40


def is_object_id(text: str) -> bool:
    """Whether `text` is 24 lower-case hex characters."""
    return _FORM.fullmatch(text) is not None


class ObjectIds:
    """Makes ids of 4 bytes seconds, 5 bytes random per process, 3 bytes counter (the BSON ObjectId layout).

    Ids of one instance strictly rise, also when the clock steps back, so insertion order is id order.
    Source of the layout: the BSON specification, https://bsonspec.org.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = int.from_bytes(os.urandom(_RANDOM_BITS // 8), "big")
        self._last = 0

    def block(self, count: int) -> list[str]:
        """`count` new ids in rising order."""
        floor = (int(time.time()) << (_RANDOM_BITS + _COUNTER_BITS)) | (self._process << _COUNTER_BITS)
        with self._lock:
            first = max(self._last + 1, floor)
            self._last = first + count - 1
        return [f"{number:024x}" for number in range(first, first + count)]

    def new(self) -> str:
        return self.block(1)[0]


def following(first: str, count: int) -> list[str]:
    """The `count` ids that start with `first` and rise by one: the same block again, for an idempotent replay."""
    start = int(first, 16)
    return [f"{number:024x}" for number in range(start, start + count)]


def new_uuid() -> str:
    """A random UUID4 in its usual text form."""
    return str(uuid.uuid4())
