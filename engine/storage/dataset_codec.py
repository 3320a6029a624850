"""Datasets with their items and evaluators, to documents and back."""

from collections.abc import Mapping
from typing import Any

import orjson

from engine.evaluation.values import Metric, MetricKind
from engine.records.datasets import Dataset, DatasetItem, DatasetPart
from engine.records.evaluators import Evaluator
from engine.storage.codec import Document, json_text, json_value, metadata_from_document
from engine.storage.record_codec import Kind


def _encode(dataset: Dataset) -> Document:
    return {
        "clientId": dataset.client_id,
        "name": dataset.name,
        "version": dataset.version,
        "count": dataset.count,
        "size": dataset.size,
        "starts": list(dataset.starts),
    }


def _decode(document: Mapping[str, Any]) -> Dataset:
    return Dataset(
        id=str(document["_id"]),
        client_id=document["clientId"],
        name=document["name"],
        version=document["version"],
        count=document["count"],
        size=document["size"],
        starts=tuple(document["starts"]),
        metadata=metadata_from_document(document["_metadata"]),
        revision=document["revision"],
    )


def _encode_part(part: DatasetPart) -> Document:
    items = [
        {
            "id": item.id,
            "input": item.input,
            "expected": item.expected,
            "tags": list(item.tags),
            "weight": item.weight,
        }
        for item in part.items
    ]
    return {"datasetId": part.dataset_id, "items": json_text(items)}


def _decode_part(document: Mapping[str, Any]) -> DatasetPart:
    return DatasetPart(
        id=str(document["_id"]),
        dataset_id=document["datasetId"],
        items=tuple(_decode_item(item) for item in json_value(document["items"])),
        metadata=metadata_from_document(document["_metadata"]),
        revision=document["revision"],
    )


def _decode_item(document: Mapping[str, Any]) -> DatasetItem:
    return DatasetItem(
        id=document["id"],
        input=document["input"],
        expected=document["expected"],
        tags=tuple(document["tags"]),
        weight=document["weight"],
    )


def metric_to_document(metric: Metric) -> Document:
    return {
        "kind": str(metric.kind),
        "name": metric.name,
        "weight": metric.weight,
        "hard": metric.hard,
        "threshold": metric.threshold,
        "parameters": json_text(metric.parameters),
    }


def metric_from_document(document: Mapping[str, Any]) -> Metric:
    return Metric(
        kind=MetricKind(document["kind"]),
        name=document["name"],
        weight=document["weight"],
        hard=bool(document["hard"]),
        threshold=document["threshold"],
        parameters=json_value(document["parameters"]),
    )


def _encode_evaluator(evaluator: Evaluator) -> Document:
    return {
        "clientId": evaluator.client_id,
        "name": evaluator.name,
        "version": evaluator.version,
        "description": evaluator.description,
        "metrics": [metric_to_document(metric) for metric in evaluator.metrics],
    }


def _decode_evaluator(document: Mapping[str, Any]) -> Evaluator:
    return Evaluator(
        id=str(document["_id"]),
        client_id=document["clientId"],
        name=document["name"],
        version=document["version"],
        description=document["description"],
        metrics=tuple(metric_from_document(each) for each in document["metrics"]),
        metadata=metadata_from_document(document["_metadata"]),
        revision=document["revision"],
    )


def _version_key(record: Dataset | Evaluator) -> str:
    return orjson.dumps([record.client_id, record.name, record.version]).decode()


DATASETS: Kind[Dataset] = Kind(
    collection="datasets",
    noun="Dataset",
    indexed=("clientId", "name"),
    unique_key=_version_key,
    encode=_encode,
    decode=_decode,
)
DATASET_PARTS: Kind[DatasetPart] = Kind(
    collection="dataset-parts",
    noun="Dataset part",
    indexed=(),
    unique_key=lambda part: part.id,
    encode=_encode_part,
    decode=_decode_part,
)
EVALUATORS: Kind[Evaluator] = Kind(
    collection="evaluators",
    noun="Evaluator",
    indexed=("clientId", "name"),
    unique_key=_version_key,
    encode=_encode_evaluator,
    decode=_decode_evaluator,
)
