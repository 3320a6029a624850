"""Optimization runs to documents and back."""

from collections.abc import Mapping
from typing import Any

from engine.records.runs import Iteration, ModelRun, Run, RunStatus, Withdrawal
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
from engine.storage.record_codec import Kind
from engine.storage.search_codec import decode_progress, decode_terms, encode_progress, encode_terms


def _encode(run: Run) -> Document:
    """`open` and `discarded` are asked for by queries."""
    return {
        "clientId": run.client_id,
        "status": str(run.status),
        "open": run.is_open,
        "discarded": run.discarded,
        "initialWorkingPromptIds": list(run.initial_prompt_ids),
        "evalPromptId": run.eval_prompt_id,
        "evalModel": run.eval_model,
        "metaPromptId": run.meta_prompt_id,
        "metaModel": run.meta_model,
        "workingModels": list(run.working_models),
        "maxIterations": run.max_iterations,
        "temperature": run.temperature,
        "priority": run.priority,
        "requestData": json_text(run.request_data),
        "pins": json_text(run.pins),
        "search": encode_terms(run.search),
        **_encode_progress(run),
    }


def _encode_progress(run: Run) -> Document:
    return {
        "currentModelIndex": run.current_model_index,
        "currentIteration": run.current_iteration,
        "currentJobId": run.current_job_id,
        "failureReason": run.failure_reason,
        "modelRuns": [
            {"model": each.model, "iterations": [_encode_iteration(iteration) for iteration in each.iterations]}
            for each in run.model_runs
        ],
        "spent": {role: totals_to_document(totals) for role, totals in run.spent.items()},
        "withdrawal": None if run.withdrawal is None else str(run.withdrawal),
        "progress": encode_progress(run.progress),
        "lease": lease_to_document(run.lease),
    }


def _encode_iteration(iteration: Iteration) -> Document:
    return {
        "iteration": iteration.number,
        "jobId": iteration.job_id,
        "workingPromptId": iteration.working_prompt_id,
        "status": iteration.status,
        "evalResult": json_text(iteration.eval_result),
        "suggestedPromptId": iteration.suggested_prompt_id,
        "totals": totals_to_document(iteration.totals),
    }


def _decode(document: Mapping[str, Any]) -> Run:
    withdrawal = document["withdrawal"]
    return Run(
        id=str(document["_id"]),
        client_id=document["clientId"],
        status=RunStatus(document["status"]),
        initial_prompt_ids=tuple(document["initialWorkingPromptIds"]),
        eval_prompt_id=document["evalPromptId"],
        eval_model=document["evalModel"],
        meta_prompt_id=document["metaPromptId"],
        meta_model=document["metaModel"],
        working_models=tuple(document["workingModels"]),
        max_iterations=document["maxIterations"],
        temperature=document["temperature"],
        priority=document["priority"],
        request_data=json_value(document["requestData"]),
        current_model_index=document["currentModelIndex"],
        current_iteration=document["currentIteration"],
        current_job_id=document["currentJobId"],
        failure_reason=document["failureReason"],
        model_runs=tuple(_decode_model_run(each) for each in document["modelRuns"]),
        spent={role: totals_from_document(totals) for role, totals in document["spent"].items()},
        withdrawal=None if withdrawal is None else Withdrawal(withdrawal),
        discarded=bool(document["discarded"]),
        pins=json_value(document.get("pins")) or {},
        search=decode_terms(document.get("search")),
        progress=decode_progress(document.get("progress")),
        lease=lease_from_document(document["lease"]),
        metadata=metadata_from_document(document["_metadata"]),
        revision=document["revision"],
    )


def _decode_model_run(document: Mapping[str, Any]) -> ModelRun:
    iterations = tuple(_decode_iteration(each) for each in document["iterations"])
    return ModelRun(model=document["model"], iterations=iterations)


def _decode_iteration(document: Mapping[str, Any]) -> Iteration:
    return Iteration(
        number=document["iteration"],
        job_id=document["jobId"],
        working_prompt_id=document["workingPromptId"],
        status=document["status"],
        eval_result=json_value(document["evalResult"]),
        suggested_prompt_id=document["suggestedPromptId"],
        totals=totals_from_document(document["totals"]),
    )


RUNS: Kind[Run] = Kind(
    collection="runs",
    noun="Run",
    indexed=("clientId", "status", "open"),
    unique_key=lambda run: run.id,
    encode=_encode,
    decode=_decode,
)
