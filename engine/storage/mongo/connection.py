"""How the driver is set up: timeouts that notice an outage within five seconds, and what Cosmos DB needs otherwise."""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pymongo import MongoClient, WriteConcern
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import ConfigurationError, InvalidName, InvalidURI
from pymongo.monitoring import CommandListener

from engine.errors import InvalidField

Document = dict[str, Any]
Documents = Collection[Document]

_COSMOS_HOSTS = re.compile(r"\.(cosmos|documents)\.azure\.(com|cn|us)(:\d+)?(,|$)")
_COSMOS_APP = re.compile(r"@[^@]+@")

_COMMON: Document = {"connectTimeoutMS": 2000, "serverSelectionTimeoutMS": 3000, "appname": "metasync"}
_MONGODB: Document = {**_COMMON, "timeoutMS": 4000, "retryWrites": True, "retryReads": True}
_COSMOS: Document = {
    **_COMMON,
    "connectTimeoutMS": 1500,
    "serverSelectionTimeoutMS": 1500,
    "socketTimeoutMS": 3000,
    "retryWrites": False,
    "retryReads": False,
}
"""Cosmos DB: no retryable writes, and no maxTimeMS on commands, which `timeoutMS` would add; the sum of its timeouts
stays under five seconds."""

DURABLE = WriteConcern(w="majority", j=True)
FOLLOWED = WriteConcern(w=1)
"""For writes that are always followed by a durable one: logs are sequential, so that one carries them along."""

INDEX_SECONDS = 600.0


def is_cosmos(url: str) -> bool:
    """By the host name, or by the `appName=@account@` that Azure puts into its connection strings."""
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2].lower()
    names = {key.lower(): value for key, value in parse_qsl(parts.query)}
    return bool(_COSMOS_HOSTS.search(hosts)) or bool(_COSMOS_APP.fullmatch(names.get("appname", "")))


def connect(url: str, *, cosmos: bool, listeners: Sequence[CommandListener] = ()) -> MongoClient[Document]:
    """A client; nothing is sent yet. What the URL says itself goes first. `listeners` see every command.

    Raises InvalidField without the URL, which may hold a password.
    """
    try:
        given = {key.lower() for key, _ in parse_qsl(urlsplit(url).query)}
        options = {key: value for key, value in (_COSMOS if cosmos else _MONGODB).items() if key.lower() not in given}
        return MongoClient(url, event_listeners=list(listeners), **options)
    except (InvalidURI, ConfigurationError, ValueError, TypeError):
        raise InvalidField("DB_CONNECTION_STRING", "not a valid MongoDB connection string") from None


def database_of(client: MongoClient[Document], name: str) -> Database[Document]:
    """Raises InvalidField for a name that MongoDB does not take."""
    try:
        return client.get_database(name, write_concern=DURABLE)
    except InvalidName as error:
        raise InvalidField("DB_NAME", "not a valid MongoDB database name") from error
