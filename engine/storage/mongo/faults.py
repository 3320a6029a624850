"""The driver's errors at the border: the one place that knows them. No text here holds a URL, a host or a document.

Every write of this back-end is guarded (by state, token or revision) or carries a stamp of its own, so that it can be
repeated after a throttle, and looked up after an unknown outcome.
"""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from bson.errors import BSONError
from pymongo.collection import Collection
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    ExecutionTimeout,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    WTimeoutError,
)

from engine.errors import InvalidField, MetasyncError, StorageError, StorageUnavailable

T = TypeVar("T")

THROTTLED = 16500
OUTCOME_UNKNOWN = 50
DUPLICATE_KEY = 11000
_AWAY = frozenset({6, 7, 64, 89, 91, 189, 262, 9001, 10058, 10107, 11600, 11602, 13435, 13436})
"""Server codes that mean: not reachable, shutting down, or not primary just now (as the drivers' specification lists
them), and 64, a write concern that could not be met in time."""
_UNFIT = frozenset({13, 18, 8000, 14031})
_TOO_LARGE = frozenset({10334, 17419, 17420})
"""Server codes for a document that is over the limit, or would be after the update."""
_LONG_WAIT = 30.0

PATIENCE_SECONDS = 4.0
_DEFAULT_WAIT = 0.1
_RETRY_AFTER = re.compile(r"RetryAfterMs\s*[=:]\s*(\d+)")
NOT_STORABLE: tuple[type[Exception], ...] = (DocumentTooLarge, BSONError, OverflowError, UnicodeEncodeError)


class OutcomeUnknown(StorageUnavailable):
    """The server gave up waiting (code 50): the write may or may not have been done."""

    code = "storage_unavailable"


def guarded(operation: Callable[[], T]) -> T:
    """What `operation` answers; a throttled one is repeated when the server said, for at most PATIENCE_SECONDS.

    Raises StorageUnavailable for an outage, OutcomeUnknown for code 50, InvalidField for what cannot be stored,
    StorageError for the rest. DuplicateKey errors pass: callers know what they mean.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return operation()
        except NOT_STORABLE as error:
            raise _not_storable() from error
        except PyMongoError as error:
            wait = throttled_for(error)
            if is_duplicate(error):
                raise
            if wait is None or time.monotonic() + wait > deadline:
                raise translated(error) from error
            time.sleep(wait)


def make_durable(collection: Collection[dict[str, Any]]) -> None:
    """Returns when all that was written before is durable: for answering a write that was only found to be there.

    A durable write that changes nothing waits for the log like any other.
    """
    guarded(lambda: collection.update_one({"_id": ""}, {"$set": {"stamp": ""}}))


def translated(error: PyMongoError) -> MetasyncError:
    """Our error for the driver's. Names the class and the code, which hold no secret, and never the text."""
    codes = set(_codes(error))
    label = f"{type(error).__name__}{f', code {min(codes)}' if codes else ''}"
    if codes & _TOO_LARGE:
        return _not_storable()
    return _outage(error, codes, label) or StorageError(f"the database refused an operation ({label})")


def _not_storable() -> InvalidField:
    return InvalidField("document", "too large for the database, or not storable text")


def _outage(error: PyMongoError, codes: set[int], label: str) -> StorageUnavailable | None:
    wait = throttled_for(error)
    if wait is not None:
        return StorageUnavailable(f"the database throttles ({label})", max(wait, 1.0))
    if isinstance(error, ExecutionTimeout) or OUTCOME_UNKNOWN in codes:
        return OutcomeUnknown(f"the database gave up on an operation ({label})")
    if isinstance(error, (ConnectionFailure, WTimeoutError, InvalidOperation)) or error.timeout or codes & _AWAY:
        return StorageUnavailable(f"the database cannot be reached ({label})")
    if codes & _UNFIT or isinstance(error, ConfigurationError):
        return StorageUnavailable(f"the database is out of space, or refuses our credentials ({label})", _LONG_WAIT)
    return None


def throttled_for(error: PyMongoError) -> float | None:
    """Seconds to wait when `error` is a throttle (code 16500), else None."""
    if THROTTLED not in _codes(error):
        return None
    details = error.details if isinstance(error, OperationFailure) else None
    waits = [int(text) / 1000 for text in _RETRY_AFTER.findall(f"{error} {details}")]
    return max(waits, default=_DEFAULT_WAIT)


def is_duplicate(error: PyMongoError) -> bool:
    """Whether nothing but taken keys stood in the way."""
    codes = set(_codes(error))
    return codes == {DUPLICATE_KEY}


def _codes(error: PyMongoError) -> Iterator[int]:
    """The server's codes in an error; a bulk write's own code says nothing, its parts' do."""
    if isinstance(error, BulkWriteError):
        for name in ("writeErrors", "writeConcernErrors"):
            yield from (part["code"] for part in error.details.get(name, ()) if "code" in part)
    elif isinstance(error, OperationFailure) and error.code is not None:
        yield error.code
