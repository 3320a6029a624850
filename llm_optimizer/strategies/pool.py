"""What the scores say about the candidates: means, paired differences, the best one. Pure; nothing here draws."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev

from engine.evaluation.statistics import scaled_to_mean, weighted_mean
from llm_optimizer.strategies.interface import Best, Candidate, Evaluate, State

SEED = "c0"
FAULT = "fault"
GATE = "gate"
RACE = "race"
"""How a reason for a rejection starts: before any rollout, on the minibatch, during validation."""


def missing(state: State, candidate: str, examples: Iterable[str]) -> list[Evaluate]:
    """The rollouts of `candidate` on `examples` that were not asked for yet, in the examples' order."""
    known = state.scores.get(candidate, {})
    return [Evaluate(candidate=candidate, example=example) for example in examples if example not in known]


def complete(state: State, candidate: str) -> bool:
    """Whether the candidate was asked for on every validation example (some may be unscored)."""
    return not missing(state, candidate, state.setup.validation)


def values(state: State, candidate: str, examples: Iterable[str]) -> list[float]:
    known = state.scores.get(candidate, {})
    found = (known.get(example) for example in examples)
    return [score for score in found if score is not None]


def mean(state: State, candidate: str, examples: Iterable[str] | None = None) -> float | None:
    """Over `examples` (None: those of validation) that have a score, by their weights; None where none has."""
    order = state.setup.validation if examples is None else examples
    return mean_of(state, state.scores.get(candidate, {}), order)


def mean_of(state: State, scores: Mapping[str, float | None], examples: Iterable[str]) -> float | None:
    """As `mean`, of scores by example."""
    rows = [(score, weight(state, one)) for one in examples if (score := scores.get(one)) is not None]
    if state.setup.weights:
        return weighted_mean([score for score, _ in rows], [share for _, share in rows])
    return fmean(score for score, _ in rows) if rows else None


def weight(state: State, example: str) -> float:
    """How much the example counts, 1 on average."""
    return state.setup.weights.get(example, 1.0)


def differences(state: State, one: str, other: str, examples: Iterable[str]) -> list[float]:
    """`one` minus `other` on each of `examples` that both have a score on, such that the mean is the weighted one."""
    mine, theirs = state.scores.get(one, {}), state.scores.get(other, {})
    rows = ((example, mine.get(example), theirs.get(example)) for example in examples)
    gaps = [(a - b, weight(state, example)) for example, a, b in rows if a is not None and b is not None]
    plain = [gap for gap, _ in gaps]
    return scaled_to_mean(plain, [share for _, share in gaps]) if state.setup.weights else plain


def hopeless(gaps: Sequence[float]) -> bool:
    """Whether paired differences so far are below zero by more than their standard error."""
    if not gaps:
        return False
    error = stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0
    return fmean(gaps) + error < 0


def standing(state: State) -> list[tuple[Candidate, float]]:
    """The candidates that are in the search and fully validated, oldest first, with their means."""
    accepted = (one for one in state.candidates.values() if one.rejected is None and complete(state, one.id))
    rated = ((one, mean(state, one.id)) for one in accepted)
    return [(one, score) for one, score in rated if score is not None]


def best(state: State) -> Best:
    """The highest mean on the validation examples; of equals the shortest text, of these the oldest."""
    rated = standing(state)
    if not rated:
        return Best(candidate=SEED, mean=mean(state, SEED))
    winner, score = max(rated, key=lambda pair: (pair[1], -len(pair[0].text)))
    return Best(candidate=winner.id, mean=score)


def newest_best(state: State) -> str:
    """As `best`, but of equals the newest: a search moves on from what it found last."""
    rated = standing(state)
    top = max((score for _, score in rated), default=None)
    return next((one.id for one, score in reversed(rated) if score == top), SEED)


def ranked(state: State, most: int) -> tuple[tuple[str, float], ...]:
    """Up to `most` validated candidates with their means, the worst first."""
    rated = sorted(standing(state), key=lambda pair: pair[1])
    return tuple((one.id, score) for one, score in rated[-most:])


def beaten(state: State, most: int) -> tuple[str, ...]:
    """The last `most` candidates that lost by their scores, oldest first."""
    lost = [one.id for one in state.candidates.values() if one.rejected and not one.rejected.startswith(FAULT)]
    return tuple(lost[-most:])
