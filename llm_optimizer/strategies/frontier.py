"""Which candidates are best at something: Pareto parents, and pairs that are worth a merge. Pure.

Source: Agrawal et al., "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning" (arXiv 2507.19457),
algorithm 2 for the parents. The merge by a meta call is ours: with one prompt text there is nothing to swap.
"""

from typing import Any

from llm_optimizer.strategies import pool
from llm_optimizer.strategies.interface import ProposalKind, State
from llm_optimizer.strategies.minibatch import some
from utilities.draws import draws

WINS_FOR_A_MERGE = 2
GATE_SHARE = 2
WINS_SHOWN = 3


def fronts(state: State) -> dict[str, set[str]]:
    """For each candidate the validation examples on which nobody is better; candidates without any are left out."""
    ids = [one.id for one, _ in pool.standing(state)]
    found: dict[str, set[str]] = {}
    for example in state.setup.validation:
        rated = {one: score for one in ids if (score := state.scores[one].get(example)) is not None}
        top = max(rated.values(), default=None)
        for one in (one for one, score in rated.items() if score == top):
            found.setdefault(one, set()).add(example)
    return found


def survivors(state: State) -> dict[str, set[str]]:
    """`fronts` without those whose every example another survivor is as good at; the lowest means go first."""
    left = fronts(state)
    for one in sorted(left, key=lambda name: (pool.mean(state, name) or 0.0, name)):
        others: set[str] = set().union(*(examples for name, examples in left.items() if name != one))
        if left[one] <= others:
            del left[one]
    return left


def pareto_parent(state: State) -> str:
    """A survivor, drawn in proportion to the examples that it is best at."""
    left = survivors(state)
    if not left:
        return pool.SEED
    names = sorted(left)
    return draws(state.setup.seed, "parent", state.step).choices(names, [len(left[name]) for name in names])[0]


def merge_pair(state: State) -> tuple[str, str] | None:
    """The two survivors that together would be best, when each wins at least two examples that the other loses."""
    names = sorted(survivors(state))
    pairs = [(a, b) for a in names for b in names if a < b and _each_wins(state, a, b) and not _merged(state, a, b)]
    return max(pairs, key=lambda pair: (_together(state, *pair), pair), default=None)


def merge_trial(state: State, first: str, second: str, *, margin: float) -> dict[str, Any]:
    """The open iteration of a merge; its gate is on examples that one wins, that the other wins, and ties."""
    order = state.setup.validation
    mine, theirs = wins(state, first, second), wins(state, second, first)
    ties = [example for example in order if example not in mine and example not in theirs]
    seed, step = state.setup.seed, state.step
    groups = {"first": mine, "second": theirs, "ties": ties}
    batch = [one for name, group in groups.items() for one in some(seed, f"merge {name}", step, group, GATE_SHARE)]
    return {
        "parent": first,
        "batch": batch,
        "shown": {},
        "item": {
            "kind": ProposalKind.MERGE.value,
            "second": second,
            "wins": [mine[:WINS_SHOWN], theirs[:WINS_SHOWN]],
        },
        "against": [first, second],
        "margin": margin,
    }


def wins(state: State, one: str, other: str) -> list[str]:
    """The validation examples on which `one` scores higher, in their order."""
    mine, theirs = state.scores[one], state.scores[other]
    pairs = ((example, mine.get(example), theirs.get(example)) for example in state.setup.validation)
    return [example for example, a, b in pairs if a is not None and b is not None and a > b]


def _each_wins(state: State, a: str, b: str) -> bool:
    return min(len(wins(state, a, b)), len(wins(state, b, a))) >= WINS_FOR_A_MERGE


def _merged(state: State, a: str, b: str) -> bool:
    return any(set(one.parents) == {a, b} for one in state.candidates.values())


def _together(state: State, a: str, b: str) -> float:
    """The weighted sum over the examples of the better of the two scores."""
    mine, theirs = state.scores[a], state.scores[b]
    return sum(
        pool.weight(state, one) * max(mine.get(one) or 0.0, theirs.get(one) or 0.0) for one in state.setup.validation
    )
