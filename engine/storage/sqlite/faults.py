"""What SQLite and its driver raise, as errors of ours: the only place that knows their codes."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import InvalidField, MetasyncError, StorageCorrupt, StorageError, StorageUnavailable

_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_BROKEN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_FORBIDDEN = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH})
_AWAY = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT})

DRIVER_ERRORS = (sqlite3.Error, OverflowError, UnicodeEncodeError)
"""All that the driver raises: its own family, and two for values that it cannot bind."""


def is_duplicate(error: sqlite3.Error) -> bool:
    """Whether a unique index refused the row."""
    codes = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
    return getattr(error, "sqlite_errorcode", 0) in codes


def _code(error: Exception) -> int:
    """The primary code, which is the low byte. Source: https://sqlite.org/rescode.html"""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_locked(error: Exception) -> bool:
    """Whether a lock was not to be had within the busy timeout."""
    return _code(error) in _LOCKED


def translate(error: Exception) -> Exception:
    """The error of ours that stands for one of DRIVER_ERRORS; any other error as it is."""
    if isinstance(error, sqlite3.Error):
        return _storage_error(error)
    if isinstance(error, DRIVER_ERRORS):
        return InvalidField("value", "cannot be stored: a number or a character out of range")
    return error


def _storage_error(error: sqlite3.Error) -> MetasyncError:
    code = _code(error)
    outage = _outage(code, error)
    if outage is not None:
        return outage
    if code in _BROKEN:
        return StorageCorrupt(
            f"the database file is damaged or not a database: {error}; put a copy in its place, or name another file"
        )
    if code == sqlite3.SQLITE_TOOBIG or isinstance(error, sqlite3.DataError):
        return InvalidField("value", "too large to be stored")
    return StorageError(f"unexpected error of the database: {error}")


def _outage(code: int, error: sqlite3.Error) -> StorageUnavailable | None:
    """What may be otherwise later, without the file being changed."""
    if code in _LOCKED:
        return StorageUnavailable("the database file is locked by another process", retry_after=1.0)
    if code == sqlite3.SQLITE_FULL:
        return StorageUnavailable("the disk of the database file is full", retry_after=10.0)
    if code in _FORBIDDEN:
        return StorageUnavailable(
            f"the database file cannot be written: {error}; whoever runs Metasync needs the right to write to it and "
            "to its folder"
        )
    return StorageUnavailable(f"the database file cannot be used: {error}") if code in _AWAY else None


@contextmanager
def translated() -> Iterator[None]:
    """Raises our error in place of the driver's."""
    try:
        yield
    except DRIVER_ERRORS as error:
        raise translate(error) from error
