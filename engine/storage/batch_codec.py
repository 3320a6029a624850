"""Files and batches to documents and back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from engine.llm import Usage
from engine.records.batches import Batch, BatchProblem, BatchStatus, Progress
from engine.records.files import FileStatus, StoredFile
from engine.storage.codec import (
    Document,
    certain_instant,
    instant,
    json_text,
    json_value,
    lease_from_document,
    lease_to_document,
    metadata_from_document,
)
from engine.storage.record_codec import Kind

_INSTANTS = {
    "inProgressAt": "in_progress_at",
    "finalizingAt": "finalizing_at",
    "completedAt": "completed_at",
    "failedAt": "failed_at",
    "expiredAt": "expired_at",
    "cancellingAt": "cancelling_at",
    "cancelledAt": "cancelled_at",
}
_PLAIN = {
    "clientId": "client_id",
    "endpoint": "endpoint",
    "inputFileId": "input_file_id",
    "priority": "priority",
    "outputSeconds": "output_seconds",
    "model": "model",
    "firstJobId": "first_job_id",
    "total": "total",
    "inserted": "inserted",
    "completed": "completed",
    "failed": "failed",
    "withdrawn": "withdrawn",
    "outputFileId": "output_file_id",
    "errorFileId": "error_file_id",
}


def _encode_file(file: StoredFile) -> Document:
    return {
        "clientId": file.client_id,
        "filename": file.filename,
        "purpose": file.purpose,
        "size": file.size,
        "status": str(file.status),
        "expiresAt": file.expires_at,
    }


def _decode_file(document: Mapping[str, Any]) -> StoredFile:
    return StoredFile(
        id=str(document["_id"]),
        client_id=document["clientId"],
        filename=document["filename"],
        purpose=document["purpose"],
        size=document["size"],
        status=FileStatus(document["status"]),
        expires_at=instant(document["expiresAt"]),
        metadata=metadata_from_document(document["_metadata"]),
        revision=document["revision"],
    )


def _encode_batch(batch: Batch) -> Document:
    return {
        **{wire: getattr(batch, name) for wire, name in (_PLAIN | _INSTANTS).items()},
        "expiresAt": batch.expires_at,
        "pairs": json_text(None if batch.pairs is None else dict(batch.pairs)),
        "status": str(batch.status),
        "ending": str(batch.ending),
        "problems": [asdict(problem) for problem in batch.problems],
        "usage": asdict(batch.usage),
        "progress": asdict(batch.progress),
        "resultFileIds": list(batch.result_file_ids),
        "lease": lease_to_document(batch.lease),
    }


def _decode_batch(document: Mapping[str, Any]) -> Batch:
    fields: dict[str, Any] = {name: document[wire] for wire, name in _PLAIN.items()}
    fields |= {name: instant(document[wire]) for wire, name in _INSTANTS.items()}
    return Batch(
        id=str(document["_id"]),
        **fields,
        expires_at=certain_instant(document["expiresAt"]),
        pairs=json_value(document["pairs"]),
        status=BatchStatus(document["status"]),
        ending=BatchStatus(document["ending"]),
        problems=tuple(BatchProblem(**problem) for problem in document["problems"]),
        usage=Usage(**document["usage"]),
        progress=Progress(**document["progress"]),
        result_file_ids=tuple(document.get("resultFileIds", ())),
        lease=lease_from_document(document["lease"]),
        metadata=metadata_from_document(document["_metadata"]),
        revision=document["revision"],
    )


FILES: Kind[StoredFile] = Kind(
    collection="files",
    noun="File",
    indexed=("clientId", "status"),
    unique_key=lambda file: file.id,
    encode=_encode_file,
    decode=_decode_file,
)
BATCHES: Kind[Batch] = Kind(
    collection="batches",
    noun="Batch",
    indexed=("clientId", "status", "inputFileId"),
    unique_key=lambda batch: batch.id,
    encode=_encode_batch,
    decode=_decode_batch,
)
