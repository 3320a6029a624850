"""The database server's own clock."""

from datetime import datetime

from pymongo.database import Database

from engine.storage.codec import certain_instant
from engine.storage.mongo.connection import Document
from engine.storage.mongo.faults import guarded


def server_time(database: Database[Document]) -> datetime:
    """Aware UTC. By `isMaster`, which every version and Cosmos DB answer, without touching data."""
    answer = guarded(lambda: database.client.admin.command("isMaster"))
    return certain_instant(answer["localTime"])
