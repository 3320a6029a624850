"""What a run has found, as plain JSON under wire names: pure. Everything in it is bounded."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from engine.jobs.job import Totals
from engine.llm import JsonObject
from engine.records.runs import Run
from engine.records.searches import Combination
from llm_optimizer.search import FIRST, WINNER, Search, leading_text, mean_of
from llm_optimizer.strategies import combos, pool
from llm_optimizer.strategies.interface import Candidate, State
from llm_optimizer.subject import Example, Subject

MOST_CANDIDATES = 500
MOST_ITEMS = 300
MOST_ANCESTORS = 30
MOST_PROMPTS = 50
LONGEST_TEXT = 20_000
LONGEST_FIELD = 500


def prompts_to_show(run: Run) -> list[str]:
    """The ids of the prompts of a refinement, in the order in which they came up."""
    steps = [one for each in run.model_runs for one in each.iterations]
    used = [name for one in steps for name in (one.working_prompt_id, one.suggested_prompt_id) if name is not None]
    return list(dict.fromkeys(used))[:MOST_PROMPTS]


def report_of(
    run: Run,
    search: Search | None = None,
    subject: Subject | None = None,
    prompts: Mapping[str, str] | None = None,
) -> JsonObject:
    """`search` is given for a run with a dataset, `subject` too unless something that it was about is gone.

    `prompts` are the texts of a refinement, those of `prompts_to_show` that exist.
    """
    head: JsonObject = {
        "runId": run.id,
        "status": run.status,
        "failureReason": run.failure_reason,
        "createdAt": run.metadata.created_at,
        "spent": {role: _totals(totals) for role, totals in sorted(run.spent.items())},
        "total": _totals(run.totals),
    }
    if search is None:
        texts = {name: _cut(text, LONGEST_TEXT) for name, text in (prompts or {}).items()}
        models = [_model(run, place) for place in range(len(run.model_runs))]
        return {**head, "kind": "refinement", "models": models, "prompts": texts}
    return {**head, "kind": "search", **_searched(run, search, subject)}


def _searched(run: Run, search: Search, subject: Subject | None) -> JsonObject:
    progress = run.progress
    assert progress is not None
    arms = search.arms or (() if subject is None else subject.arms)
    return {
        "strategy": search.strategy_name,
        "phase": search.phase,
        "steps": search.step,
        "finishReason": search.finish,
        "verdict": progress.verdict,
        "numbers": progress.numbers,
        "baseline": search.baseline,
        "best": progress.best,
        "points": search.points,
        "candidates": _candidates(search),
        "ancestry": [one.id for one in _ancestry(search)],
        "first": _cut(search.setup.prompt, LONGEST_TEXT),
        "winner": _cut(leading_text(search), LONGEST_TEXT),
        "changed": leading_text(search) != search.setup.prompt,
        "winnerPromptId": progress.winner_id,
        "winnerModels": _models(search, arms),
        "combinations": _combinations(search, arms),
        "budget": search.budget,
        "holdout": _holdout(search),
        "items": _items(search, {} if subject is None else subject.examples),
    }


def _models(search: Search, arms: Sequence[Combination]) -> JsonObject | None:
    place = search.winner_arm if search.winner is not None or search.leader is None else search.leader.arm
    return _named(arms[place]) if arms else None


def _named(arm: Combination) -> JsonObject:
    return {"workingModel": arm.working, "metaModel": arm.meta, "judgeModel": arm.judge}


def _combinations(search: Search, arms: Sequence[Combination]) -> list[JsonObject]:
    """Where several are tried: how each has done, by the judge that all share."""
    if search.state is None or search.state.strategy != combos.Combos.name or not arms:
        return []
    return [
        {
            **_named(arm),
            "left": each.left,
            "rollouts": each.rollouts,
            "score": each.score,
            "costPer1000": each.cost_per_1000,
        }
        for arm, each in zip(arms, combos.standings(search.state), strict=True)
    ]


def _candidates(search: Search) -> list[JsonObject]:
    """The newest are left out where there are too many to show."""
    state = search.state
    if state is None:
        return [{"id": FIRST, "parents": [], "kind": "seed", "step": 0, "score": search.baseline}]
    shown = list(state.candidates.values())[:MOST_CANDIDATES]
    whole = {one.id for one in (shown if len(state.candidates) <= MOST_PROMPTS else _ancestry(search))}
    return [_candidate(state, one, LONGEST_TEXT if one.id in whole else LONGEST_FIELD) for one in shown]


def _ancestry(search: Search) -> list[Candidate]:
    """From the first prompt to the best one, by the first parent of each; the nearest where there are too many."""
    state = search.state
    if state is None:
        return []
    best, leader = leading_text(search), search.leader
    first = [] if leader is None else [state.candidates[leader.candidate]]
    at = next((one for one in (*first, *state.candidates.values()) if one.text == best), None)
    line: list[Candidate] = []
    while at is not None and len(line) < MOST_ANCESTORS:
        line.append(at)
        at = state.candidates.get(at.parents[0]) if at.parents else None
    return line[::-1]


def _candidate(state: State, one: Candidate, longest: int) -> JsonObject:
    return {
        "id": one.id,
        "parents": list(one.parents),
        "kind": one.kind,
        "step": one.step,
        "score": pool.mean(state, one.id),
        "scored": len(pool.values(state, one.id, state.setup.validation)),
        "rejected": one.rejected,
        "rationale": _cut(one.rationale, LONGEST_FIELD),
        "text": _cut(one.text, longest),
    }


def _holdout(search: Search) -> JsonObject:
    """The mean scores of both prompts on the examples that the search never saw and on which both have one."""
    scores = {name: search.holdout.get(key, {}) for name, key in (("first", FIRST), ("winner", WINNER))}
    both = {one for one in search.split.holdout if all(each.get(one) is not None for each in scores.values())}
    shared = {name: {one: each[one] for one in sorted(both)} for name, each in scores.items()}
    return {name: mean_of(each, search.weights) for name, each in shared.items()}


def _items(search: Search, examples: Mapping[str, Example]) -> list[JsonObject]:
    """The holdout's examples, those that changed most first."""
    before, after = search.holdout.get(FIRST, {}), search.holdout.get(WINNER, {})
    rows = [(one, before.get(one), after.get(one)) for one in search.split.holdout if one in after]
    rows.sort(key=lambda row: (-abs((row[2] or 0.0) - (row[1] or 0.0)), row[0]))
    return [_item(examples.get(row[0]), *row) for row in rows[:MOST_ITEMS]]


def _item(example: Example | None, name: str, before: float | None, after: float | None) -> JsonObject:
    return {
        "id": name,
        "input": _shown(None if example is None else example.input),
        "expected": _shown(None if example is None else example.expected),
        "weight": 1.0 if example is None else example.weight,
        "before": before,
        "after": after,
    }


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _cut(text, LONGEST_FIELD)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _totals(totals: Totals) -> JsonObject:
    [currency] = totals.currencies if len(totals.currencies) == 1 else [None]
    return {
        "calls": totals.calls,
        "inputTokens": totals.input_tokens,
        "outputTokens": totals.output_tokens,
        "seconds": totals.duration,
        "amount": None if currency is None else float(totals.input_cost + totals.output_cost),
        "currency": currency,
    }


def _model(run: Run, place: int) -> JsonObject:
    each = run.model_runs[place]
    return {
        "model": each.model,
        "iterations": [
            {
                "iteration": one.number,
                "jobId": one.job_id,
                "status": one.status,
                "score": score_in(one.eval_result),
                "workingPromptId": one.working_prompt_id,
                "suggestedPromptId": one.suggested_prompt_id,
            }
            for one in each.iterations
        ],
    }


def score_in(evaluation: Mapping[str, Any] | None) -> float | None:
    """The score of an evaluation that has one under a usual name."""
    names: Sequence[str] = ("score", "total_score", "totalScore")
    found = [evaluation.get(name) for name in names] if evaluation else []
    return next((float(each) for each in found if isinstance(each, int | float) and not isinstance(each, bool)), None)
