"""Evaluations and their results to documents and back."""

from collections.abc import Mapping
from typing import Any

from engine.evaluation.statistics import Interval
from engine.records.evaluations import (
    Contender,
    Evaluation,
    EvaluationPart,
    EvaluationStatus,
    ItemResult,
    ItemsAt,
    Mark,
    Tally,
)
from engine.storage.codec import (
    Document,
    json_text,
    json_value,
    lease_from_document,
    lease_to_document,
    metadata_from_document,
    totals_from_document,
    totals_to_document,
)
from engine.storage.dataset_codec import metric_from_document, metric_to_document
from engine.storage.record_codec import Kind


def _encode(evaluation: Evaluation) -> Document:
    """`open` and `discarded` are asked for by queries."""
    return {
        "clientId": evaluation.client_id,
        "status": str(evaluation.status),
        "open": evaluation.is_open,
        "discarded": evaluation.discarded,
        "name": evaluation.name,
        "datasetId": evaluation.dataset_id,
        "evaluatorId": evaluation.evaluator_id,
        "items": {
            "id": evaluation.items.id,
            "count": evaluation.items.count,
            "starts": list(evaluation.items.starts),
        },
        "metrics": [metric_to_document(metric) for metric in evaluation.metrics],
        "contenders": [
            {"prompts": list(each.prompts), "instructions": each.instructions} for each in evaluation.contenders
        ],
        "models": list(evaluation.models),
        "temperature": evaluation.temperature,
        "responseFormat": json_text(evaluation.response_format),
        "priority": evaluation.priority,
        "maxParallel": evaluation.max_parallel,
        "seed": evaluation.seed,
        **_encode_progress(evaluation),
    }


def _encode_progress(evaluation: Evaluation) -> Document:
    return {
        "done": evaluation.done,
        "tallies": [_encode_tally(tally) for tally in evaluation.tallies],
        "spent": {role: totals_to_document(totals) for role, totals in evaluation.spent.items()},
        "failureReason": evaluation.failure_reason,
        "withdrawal": evaluation.withdrawal,
        "lease": lease_to_document(evaluation.lease),
    }


def _encode_tally(tally: Tally) -> Document:
    interval = tally.interval
    return {
        "scored": tally.scored,
        "unscored": tally.unscored,
        "errors": tally.errors,
        "weight": tally.weight,
        "total": tally.total,
        "interval": None if interval is None else [interval.low, interval.high],
        "metrics": json_text(dict(tally.metrics)),
    }


def _decode(document: Mapping[str, Any]) -> Evaluation:
    items = document["items"]
    return Evaluation(
        id=str(document["_id"]),
        client_id=document["clientId"],
        name=document["name"],
        dataset_id=document["datasetId"],
        evaluator_id=document["evaluatorId"],
        items=ItemsAt(id=items["id"], count=items["count"], starts=tuple(items["starts"])),
        metrics=tuple(metric_from_document(each) for each in document["metrics"]),
        contenders=tuple(
            Contender(prompts=tuple(each["prompts"]), instructions=each["instructions"])
            for each in document["contenders"]
        ),
        models=tuple(document["models"]),
        temperature=document["temperature"],
        response_format=json_value(document["responseFormat"]),
        priority=document["priority"],
        max_parallel=document["maxParallel"],
        seed=document["seed"],
        metadata=metadata_from_document(document["_metadata"]),
        revision=document["revision"],
        **_decode_progress(document),
    )


def _decode_progress(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "status": EvaluationStatus(document["status"]),
        "done": document["done"],
        "tallies": tuple(_decode_tally(each) for each in document["tallies"]),
        "spent": {role: totals_from_document(totals) for role, totals in document["spent"].items()},
        "failure_reason": document["failureReason"],
        "withdrawal": document["withdrawal"],
        "discarded": document["discarded"],
        "lease": lease_from_document(document["lease"]),
    }


def _decode_tally(document: Mapping[str, Any]) -> Tally:
    interval = document["interval"]
    return Tally(
        scored=document["scored"],
        unscored=document["unscored"],
        errors=document["errors"],
        weight=document["weight"],
        total=document["total"],
        interval=None if interval is None else Interval(*interval),
        metrics=json_value(document["metrics"]),
    )


def _encode_part(part: EvaluationPart) -> Document:
    results = [
        {
            "itemId": result.item_id,
            "cell": result.cell,
            "mark": str(result.mark),
            "weight": result.weight,
            "jobId": result.job_id,
            "score": result.score,
            "feedback": result.feedback,
            "reason": result.reason,
            "metrics": result.metrics,
            "judgeJobs": list(result.judge_jobs),
        }
        for result in part.results
    ]
    return {"evaluationId": part.evaluation_id, "results": json_text(results)}


def _decode_part(document: Mapping[str, Any]) -> EvaluationPart:
    return EvaluationPart(
        id=str(document["_id"]),
        evaluation_id=document["evaluationId"],
        results=tuple(_decode_result(each) for each in json_value(document["results"])),
        metadata=metadata_from_document(document["_metadata"]),
        revision=document["revision"],
    )


def _decode_result(document: Mapping[str, Any]) -> ItemResult:
    return ItemResult(
        item_id=document["itemId"],
        cell=document["cell"],
        mark=Mark(document["mark"]),
        weight=document["weight"],
        job_id=document["jobId"],
        score=document["score"],
        feedback=document["feedback"],
        reason=document["reason"],
        metrics=document["metrics"],
        judge_jobs=tuple(document["judgeJobs"]),
    )


EVALUATIONS: Kind[Evaluation] = Kind(
    collection="evaluations",
    noun="Evaluation",
    indexed=("clientId", "status", "open"),
    unique_key=lambda evaluation: evaluation.id,
    encode=_encode,
    decode=_decode,
)
EVALUATION_PARTS: Kind[EvaluationPart] = Kind(
    collection="evaluation-parts",
    noun="Evaluation part",
    indexed=(),
    unique_key=lambda part: part.id,
    encode=_encode_part,
    decode=_decode_part,
)
