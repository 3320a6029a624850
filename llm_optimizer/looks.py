"""How often examples that prove a winner were looked at: of several runs with the same ones, one is better by luck."""

from collections.abc import Sequence

from engine.records.runs import Run
from engine.records.searches import Phase, Verdict
from engine.records.store import RecordStore, Where

_TESTED = (Verdict.PROMOTED, Verdict.PROVEN, Verdict.NOT_PROVEN)


def looks_before(runs: RecordStore[Run], run: Run) -> int:
    """Other runs of the client that have proven a winner on the same dataset by the same evaluator, or are at it.

    Who has no evaluator is judged by the evaluation prompt. Runs that were deleted are not known any more.
    """
    terms = run.search
    assert terms is not None
    alike: dict[str, Sequence[object]] = {
        "clientId": [run.client_id],
        "search.datasetId": [terms.dataset_id],
        "search.evaluatorId": [terms.evaluator_id],
    }
    if terms.evaluator_id is None:
        alike["evalPromptId"] = [run.eval_prompt_id]
    tested = runs.count(Where(equals={**alike, "progress.verdict": [str(verdict) for verdict in _TESTED]}))
    return tested + runs.count(Where(equals={**alike, "progress.phase": [str(Phase.HOLDOUT)]}))
