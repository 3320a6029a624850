"""Canaries of prompt flows to documents and back."""

from collections.abc import Mapping
from typing import Any

from engine.evaluation.statistics import Interval
from engine.records.canaries import Canary, CanaryStatus, Finding, Pair
from engine.storage.codec import Document, certain_instant, instant


def canary_to_document(canary: Canary) -> Document:
    return {
        "id": canary.id,
        "promptId": canary.prompt_id,
        "replaces": canary.replaces,
        "share": canary.share,
        "since": canary.since,
        "status": str(canary.status),
        "pairs": [[pair.job_id, pair.difference] for pair in canary.pairs],
        "passed": canary.passed,
        "looks": canary.looks,
        "finding": _finding_to_document(canary.finding),
        "reason": canary.reason,
        "endedAt": canary.ended_at,
    }


def canary_from_document(document: Mapping[str, Any]) -> Canary:
    return Canary(
        id=document["id"],
        prompt_id=document["promptId"],
        replaces=document["replaces"],
        share=document["share"],
        since=certain_instant(document["since"]),
        status=CanaryStatus(document["status"]),
        pairs=tuple(Pair(job_id, difference) for job_id, difference in document["pairs"]),
        passed=document["passed"],
        looks=document["looks"],
        finding=_finding_from_document(document["finding"]),
        reason=document["reason"],
        ended_at=instant(document["endedAt"]),
    )


def _finding_to_document(finding: Finding | None) -> Document | None:
    if finding is None:
        return None
    interval = finding.interval
    return {
        "pairs": finding.pairs,
        "mean": finding.mean,
        "interval": None if interval is None else [interval.low, interval.high],
        "worse": finding.worse,
        "better": finding.better,
        "at": finding.at,
    }


def _finding_from_document(document: Mapping[str, Any] | None) -> Finding | None:
    if document is None:
        return None
    interval = document["interval"]
    return Finding(
        pairs=document["pairs"],
        mean=document["mean"],
        interval=None if interval is None else Interval(*interval),
        worse=document["worse"],
        better=document["better"],
        at=certain_instant(document["at"]),
    )
