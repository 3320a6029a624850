"""MongoDB 5 and later, and Azure Cosmos DB for MongoDB (request units), as a back-end."""

from engine.storage.mongo.storage import MongoStorage, open_mongo

__all__ = ["MongoStorage", "open_mongo"]
