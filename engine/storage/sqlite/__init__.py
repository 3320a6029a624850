"""The embedded back-end: one SQLite file."""

from engine.storage.sqlite.storage import SqliteStorage, open_sqlite

__all__ = ["SqliteStorage", "open_sqlite"]
