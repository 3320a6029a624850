"""How a search begins: its budget in rollouts, its examples split, and what the strategy is told. Pure."""

import math
from dataclasses import replace

from engine.errors import InvalidField
from engine.llm import JsonObject
from engine.records.searches import RunBudget, SearchTerms
from llm_optimizer.headroom import Probe, probe_of
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
    _check(terms, subject)
    holdout = _holdout(terms, len(subject.examples))
    rollouts = _rollouts(terms.budget, subject, holdout)
    tags = {name: example.tags for name, example in subject.examples.items()}
    parts = split(tags, seed=terms.seed, rollouts=rollouts, holdout=holdout, arms=len(subject.arms))
    weights = weights_of(subject)
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
        own_judges=any(arm.judge is not None for arm in subject.arms),
        weights={one: weights[one] for one in (*parts.feedback, *parts.validation) if weights},
        parameters=dict(terms.parameters),
    )
    return Search(
        split=parts,
        setup=setup,
        strategy_name=terms.strategy,
        pinned=pinned,
        weights={one: weights[one] for one in parts.holdout if weights},
        probe=_probe(terms, subject, setup),
        arms=subject.arms,
        budget=_told(effective(terms.budget, subject, len(parts.holdout))),
    )


def _check(terms: SearchTerms, subject: Subject) -> None:
    """Raises InvalidField where the judges cannot say what the strategy has to know."""
    scoring = subject.scoring
    if terms.strategy == "duel" and not scoring.can_compare:
        raise InvalidField("strategy.name", "duel needs an evaluator with a pairwise judge")
    if scoring.pairwise and len(subject.arms) > 1 and terms.strategy in ("auto", "duel"):
        raise InvalidField("modelCombinations", "a pairwise judge alone cannot rank combinations of models")


def _probe(terms: SearchTerms, subject: Subject, setup: Setup) -> Probe:
    if (
        terms.force or subject.scoring.pairwise or len(subject.arms) > 1
    ):  # other models are worth a search by themselves
        return Probe()
    golds = [one for one in setup.validation if subject.examples[one].expected is not None]
    return probe_of(setup.validation, golds, setup.rollouts)


def weights_of(subject: Subject) -> dict[str, float]:
    """How much each example counts, 1 on average; empty where all count the same."""
    raw = {name: example.weight for name, example in subject.examples.items()}
    if min(raw.values()) == max(raw.values()):
        return {}
    mean = math.fsum(raw.values()) / len(raw)
    return {name: weight / mean for name, weight in raw.items()}


def effective(budget: RunBudget, subject: Subject, holdout: int) -> RunBudget:
    """A run that names no budget has one all the same."""
    if budget != RunBudget():
        return budget
    return replace(budget, calls=int((ROLLOUTS / _FOR_META + 2 * holdout) * (1 + subject.scoring.calls)))


def _told(budget: RunBudget) -> JsonObject:
    """What restricts the run, by wire names."""
    amount = budget.amount
    caps: JsonObject = {"calls": budget.calls, "tokens": budget.tokens, "seconds": budget.seconds}
    if amount is not None:
        caps["amount"] = {"amount": float(amount.amount), "currency": amount.currency}
    return {name: cap for name, cap in caps.items() if cap is not None}


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
