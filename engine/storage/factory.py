"""Which back-end a connection string means."""

from engine.errors import InvalidField
from engine.records.store import Storage

_SQLITE = "sqlite:///"
_MONGO = ("mongodb://", "mongodb+srv://")
_FIELD = "DB_CONNECTION_STRING"


def open_storage(url: str, *, database: str, synchronous: str = "FULL") -> Storage:
    """An open back-end; the caller closes it.

    `url` is sqlite:///path (sqlite:////absolute/path), mongodb://… or mongodb+srv://…; `database` names the database on
    a MongoDB server, `synchronous` (FULL or NORMAL) is SQLite's. Raises InvalidField for any other string, whose text
    is not repeated because it may hold a password, and StorageError where the database cannot be opened.
    """
    if url.startswith(_SQLITE):
        return _open_sqlite(url.removeprefix(_SQLITE), synchronous)
    if url.startswith(_MONGO):
        from engine.storage.mongo import open_mongo  # noqa: PLC0415 - a driver is loaded only where it is used

        return open_mongo(url, database)
    raise InvalidField(_FIELD, "must start with sqlite:///, mongodb:// or mongodb+srv://")


def _open_sqlite(path: str, synchronous: str) -> Storage:
    if not path or path.startswith((":memory:", "?")) or path.endswith("/"):
        raise InvalidField(_FIELD, "sqlite:/// must be followed by the path of a file")
    from engine.storage.sqlite import open_sqlite  # noqa: PLC0415 - see above

    return open_sqlite(path, synchronous)
