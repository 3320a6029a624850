"""Contents of files, a document for each chunk. The whole range of a file's ids is one of `_id`."""

from engine.storage.mongo.connection import Documents
from engine.storage.mongo.faults import guarded


class MongoFileContents:
    """Implements engine.records.files.FileContents."""

    def __init__(self, chunks: Documents) -> None:
        self._chunks = chunks

    def put(self, file_id: str, number: int, data: bytes) -> None:
        chunk = {"_id": _chunk_id(file_id, number), "data": data}
        guarded(lambda: self._chunks.replace_one({"_id": chunk["_id"]}, chunk, upsert=True))

    def get(self, file_id: str, number: int) -> bytes | None:
        found = guarded(lambda: self._chunks.find_one({"_id": _chunk_id(file_id, number)}))
        return None if found is None else bytes(found["data"])

    def drop(self, file_id: str) -> None:
        every = {"_id": {"$gte": f"{file_id}/", "$lt": f"{file_id}0"}}
        guarded(lambda: self._chunks.delete_many(every))


def _chunk_id(file_id: str, number: int) -> str:
    return f"{file_id}/{number:08d}"
