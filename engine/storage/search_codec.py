"""What runs search for and how far they are, to documents and back; and the parts that hold a search's state."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from engine.records.searches import (
    Combination,
    Phase,
    Promotion,
    RunBudget,
    RunPart,
    SearchProgress,
    SearchTerms,
    StateAt,
    Verdict,
)
from engine.records.values import Money
from engine.storage.codec import Document, instant, json_text, json_value, metadata_from_document
from engine.storage.record_codec import Kind


def encode_terms(terms: SearchTerms | None) -> Document | None:
    if terms is None:
        return None
    return {
        "datasetId": terms.dataset_id,
        "evaluatorId": terms.evaluator_id,
        "strategy": terms.strategy,
        "parameters": json_text(dict(terms.parameters)),
        "holdout": terms.holdout,
        "seed": terms.seed,
        "budget": _encode_budget(terms.budget),
        "target": terms.target,
        "patience": terms.patience,
        "combinations": [
            {"working": each.working, "meta": each.meta, "judge": each.judge} for each in terms.combinations
        ],
        "referenceJudge": terms.reference_judge,
        "promote": str(terms.promote),
        "minGain": terms.min_gain,
        "maxParallel": terms.max_parallel,
        "force": terms.force,
    }


def _encode_budget(budget: RunBudget) -> Document:
    amount = budget.amount
    return {
        "calls": budget.calls,
        "tokens": budget.tokens,
        "amount": None if amount is None else {"amount": str(amount.amount), "currency": amount.currency},
        "seconds": budget.seconds,
    }


def decode_terms(document: Mapping[str, Any] | None) -> SearchTerms | None:
    if document is None:
        return None
    return SearchTerms(
        dataset_id=document["datasetId"],
        evaluator_id=document["evaluatorId"],
        strategy=document["strategy"],
        parameters=json_value(document["parameters"]),
        holdout=document["holdout"],
        seed=document["seed"],
        budget=_decode_budget(document["budget"]),
        target=document["target"],
        patience=document["patience"],
        combinations=tuple(
            Combination(each["working"], each["meta"], each.get("judge")) for each in document["combinations"]
        ),
        reference_judge=document.get("referenceJudge"),
        promote=Promotion(document["promote"]),
        min_gain=document["minGain"],
        max_parallel=document["maxParallel"],
        force=document["force"],
    )


def _decode_budget(document: Mapping[str, Any]) -> RunBudget:
    amount = document["amount"]
    return RunBudget(
        calls=document["calls"],
        tokens=document["tokens"],
        amount=None if amount is None else Money(Decimal(amount["amount"]), amount["currency"]),
        seconds=document["seconds"],
    )


def encode_progress(progress: SearchProgress | None) -> Document | None:
    if progress is None:
        return None
    at = progress.at
    return {
        "phase": str(progress.phase),
        "step": progress.step,
        "at": None if at is None else {"generation": at.generation, "parts": at.parts, "digest": at.digest},
        "bestText": progress.best_text,
        "baseline": progress.baseline,
        "best": progress.best,
        "finish": progress.finish,
        "verdict": None if progress.verdict is None else str(progress.verdict),
        "numbers": json_text(progress.numbers),
        "winnerId": progress.winner_id,
        "activeSince": progress.active_since,
        "activeSeconds": progress.active_seconds,
    }


def decode_progress(document: Mapping[str, Any] | None) -> SearchProgress | None:
    if document is None:
        return None
    at, verdict = document["at"], document["verdict"]
    return SearchProgress(
        phase=Phase(document["phase"]),
        step=document["step"],
        at=None if at is None else StateAt(generation=at["generation"], parts=at["parts"], digest=at["digest"]),
        best_text=document["bestText"],
        baseline=document["baseline"],
        best=document["best"],
        finish=document["finish"],
        verdict=None if verdict is None else Verdict(verdict),
        numbers=json_value(document["numbers"]),
        winner_id=document["winnerId"],
        active_since=instant(document["activeSince"]),
        active_seconds=document["activeSeconds"],
    )


def _decode_part(document: Mapping[str, Any]) -> RunPart:
    return RunPart(
        id=str(document["_id"]),
        run_id=document["runId"],
        text=document["text"],
        metadata=metadata_from_document(document["_metadata"]),
        revision=document["revision"],
    )


RUN_PARTS: Kind[RunPart] = Kind(
    collection="run-parts",
    noun="Part of a run",
    indexed=("runId",),
    unique_key=lambda part: part.id,
    encode=lambda part: {"runId": part.run_id, "text": part.text},
    decode=_decode_part,
)
