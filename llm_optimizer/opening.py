"""How a search begins: its budget in rollouts, its examples split, and what the strategy is told. Pure."""

from dataclasses import replace

from engine.errors import InvalidField
from engine.llm import JsonObject
from engine.records.searches import RunBudget, SearchTerms
from llm_optimizer.search import Search
from llm_optimizer.strategies.interface import Setup
from llm_optimizer.strategies.splitting import HOLDOUT_SHARE, SMALLEST_HOLDOUT, TOO_FEW, split
from llm_optimizer.subject import Subject

ROLLOUTS = 600
"""Of a run that names no budget."""

MOST_HOLDOUT = 100
"""Examples that prove a gain of some points; more cost more than they tell."""

_FOR_META = 0.95
"""The share of calls that are no meta calls."""

_TOKENS_A_CALL = 1_000
_FEWEST = 20


def opened(terms: SearchTerms, subject: Subject, pinned: JsonObject) -> Search:
    """The search before anything was asked. Raises InvalidField where it cannot be made of these examples."""
    if not subject.examples:
        raise InvalidField("dataset", "has no items")
    holdout = _holdout(terms, len(subject.examples))
    rollouts = _rollouts(terms.budget, subject, holdout)
    tags = {name: example.tags for name, example in subject.examples.items()}
    parts = split(tags, seed=terms.seed, rollouts=rollouts, holdout=holdout, arms=len(subject.arms))
    setup = Setup(
        prompt=subject.prompt,
        feedback=parts.feedback,
        validation=parts.validation,
        golds=tuple(one for one in parts.feedback if subject.examples[one].expected is not None),
        seed=terms.seed,
        rollouts=rollouts,
        target=terms.target,
        pairwise_only=subject.scoring.pairwise,
        arms=len(subject.arms),
        parameters=dict(terms.parameters),
    )
    return Search(split=parts, setup=setup, strategy_name=terms.strategy, pinned=pinned)


def effective(budget: RunBudget, subject: Subject, holdout: int) -> RunBudget:
    """A run that names no budget has one all the same."""
    if budget != RunBudget():
        return budget
    return replace(budget, calls=int((ROLLOUTS / _FOR_META + 2 * holdout) * (1 + subject.scoring.calls)))


def _holdout(terms: SearchTerms, count: int) -> int:
    if count < TOO_FEW:
        return 0
    if isinstance(terms.holdout, float):
        return min(round(terms.holdout * count), count // 2)
    if terms.holdout is not None:
        return min(terms.holdout, count // 2)
    return min(max(SMALLEST_HOLDOUT, round(HOLDOUT_SHARE * count)), MOST_HOLDOUT, count // 2)


def _rollouts(budget: RunBudget, subject: Subject, holdout: int) -> int:
    """How many rollouts the budget is about enough for, the proof at the end aside."""
    a_rollout = 1 + subject.scoring.calls
    calls = [
        *([] if budget.calls is None else [budget.calls]),
        *([] if budget.tokens is None else [budget.tokens // _TOKENS_A_CALL]),
    ]
    if not calls:
        return ROLLOUTS
    left = max(min(calls) - 2 * holdout * a_rollout, min(calls) * 6 // 10)
    return max(int(left * _FOR_META / a_rollout), _FEWEST)
