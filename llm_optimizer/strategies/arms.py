"""The searches that combos holds, one for each combination of models: kept in one state, under ids of their own. Pure.

Candidates have the arm in their id (`2.c5`); what else an arm's search knows is in `scratch["arms"]`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llm_optimizer.strategies.interface import Compare, Evaluate, FinishReason, Item, Propose, Setup, State, Strategy
from llm_optimizer.strategies.parameters import choice, count, nested, share
from llm_optimizer.strategies.registry import built_in


@dataclass(frozen=True, slots=True, kw_only=True)
class CombosParameters:
    """`rung` is the first rung's rollouts per arm, 0 for what the budget allows. `cost_weight` is how much score one
    unit of currency per 1,000 answers is worth.
    """

    strategy: str = choice("reflect", "refine", "opro", "beam")
    parameters: Mapping[str, Any] = nested()
    rung: int = count(0, 0, 100_000)
    factor: int = count(3, 2, 10)
    cost_weight: float = share(0.0, 0.0, 1e6)


def strategy_of(given: CombosParameters) -> Strategy:
    return built_in(given.strategy)


def inner_setup(setup: Setup, given: CombosParameters) -> Setup:
    return replace(setup, parameters=given.parameters, arms=1, own_judges=False)


def outer_id(arm: int, candidate: str) -> str:
    return f"{arm}.{candidate}"


def _inner_id(candidate: str) -> str:
    return candidate.partition(".")[2]


def keep(state: State, arm: int, inner: State) -> None:
    """Takes an arm's search into `state`."""
    for one in inner.candidates.values():
        parents = tuple(outer_id(arm, parent) for parent in one.parents)
        state.candidates[outer_id(arm, one.id)] = replace(one, id=outer_id(arm, one.id), parents=parents)
    for candidate, scores in inner.scores.items():
        state.scores[outer_id(arm, candidate)] = dict(scores)
    state.scratch["arms"][str(arm)] = {
        "strategy": inner.strategy,
        "phase": inner.phase,
        "step": inner.step,
        "counters": dict(inner.counters),
        "scratch": inner.scratch,
        "finish": inner.finish.value if inner.finish is not None else None,
    }


def inner_of(state: State, arm: int, given: CombosParameters) -> State:
    kept, mine = state.scratch["arms"][str(arm)], f"{arm}."
    found = [one for one in state.candidates.values() if one.id.startswith(mine)]
    own = [
        replace(one, id=_inner_id(one.id), parents=tuple(_inner_id(parent) for parent in one.parents)) for one in found
    ]
    return State(
        strategy=kept["strategy"],
        setup=inner_setup(state.setup, given),
        phase=kept["phase"],
        candidates={one.id: one for one in own},
        scores={_inner_id(name): dict(rows) for name, rows in state.scores.items() if name.startswith(mine)},
        step=kept["step"],
        counters=dict(kept["counters"]),
        scratch=kept["scratch"],
        finish=FinishReason(kept["finish"]) if kept["finish"] is not None else None,
    )


def spent(state: State, arm: int) -> int:
    return int(state.scratch["spent"].get(str(arm), 0))


def price(state: State, arm: int, given: CombosParameters) -> float:
    """What 1,000 rollouts of the arm cost, in score."""
    cost: float = state.scratch["cost"].get(str(arm), 0.0)
    return given.cost_weight * 1000 * cost / max(spent(state, arm), 1)


def worth(state: State, arm: int, score: float | None, given: CombosParameters) -> float:
    return -math.inf if score is None else score - price(state, arm, given)


def placed(item: Item, arm: int) -> Item:
    if isinstance(item, Evaluate):
        return replace(item, candidate=outer_id(arm, item.candidate), arm=arm)
    if isinstance(item, Compare):
        return replace(item, first=outer_id(arm, item.first), second=outer_id(arm, item.second), arm=arm)
    return _placed_proposal(item, arm)


def _placed_proposal(item: Propose, arm: int) -> Propose:
    return replace(
        item,
        parent=outer_id(arm, item.parent),
        second=None if item.second is None else outer_id(arm, item.second),
        history=tuple((outer_id(arm, one), score) for one, score in item.history),
        rejected=tuple(outer_id(arm, one) for one in item.rejected),
        arm=arm,
    )
