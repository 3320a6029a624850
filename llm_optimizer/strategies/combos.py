"""Which combination of models to optimize with: every combination gets a little, the better third three times as much.

Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification" (arXiv 1502.07943), successive halving. An arm
is one combination of working, judge and meta-model with a search of its own, which goes on where it stopped when the
arm survives. All arms are ranked on the same validation examples by one judge: scores of different judges say nothing
about the models. Before some are dropped, the best prompts of all arms of the rung meet in a playoff on further
examples, the same for all: the few of validation would let luck decide. Where arms search by judges of their own, the
playoff has the validation examples too, and all of it is scored by the judge that they share.

Candidates have the arm in their id (`2.c5`); what else an arm's search knows is in `scratch["arms"]`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm_optimizer.strategies import pool
from llm_optimizer.strategies.interface import (
    Answer,
    Best,
    Compare,
    Compared,
    Evaluate,
    FinishReason,
    Item,
    Propose,
    Proposed,
    Scored,
    Setup,
    State,
    Strategy,
)
from llm_optimizer.strategies.minibatch import some
from llm_optimizer.strategies.parameters import choice, count, nested, read, share
from llm_optimizer.strategies.registry import built_in
from llm_optimizer.strategies.state_codec import copied

FEWEST_ROLLOUTS = 60
"""In the first rung: with fewer the ranking is mostly noise."""
PLAYOFF = 0.25
"""A playoff's rollouts, as a share of those of its rung."""


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


class Combos:
    """See the module."""

    name = "combos"

    def start(self, setup: Setup) -> State:
        given = read(CombosParameters, setup.parameters)
        state = State(strategy=self.name, setup=setup, phase="rung")
        arms = range(setup.arms)
        state.scratch = {"alive": list(arms), "rung": 0, "arms": {}, "spent": {}, "cost": {}, "playoff": None}
        for arm in arms:
            _keep(state, arm, _strategy(given).start(_inner_setup(setup, given)))
        return state

    def plan(self, state: State) -> tuple[Item, ...]:
        if state.finish is not None:
            return ()
        if state.scratch["playoff"] is not None:
            return tuple(_playoff_plan(state))
        given = read(CombosParameters, state.setup.parameters)
        return tuple(item for arm in state.scratch["alive"] for _, item in _arm_plan(state, arm, given))

    def apply(self, state: State, answers: Sequence[Answer]) -> State:
        given = read(CombosParameters, state.setup.parameters)
        new = copied(state)
        if state.scratch["playoff"] is not None:
            _play(new, answers)
            _close_rungs(new, given)
            return new
        for arm in state.scratch["alive"]:
            names = {item.key: own.key for own, item in _arm_plan(state, arm, given)}
            mine = [replace(answer, key=names[answer.key]) for answer in answers if answer.key in names]
            if mine:
                _account(new, arm, mine)
                _keep(new, arm, _strategy(given).apply(_inner(state, arm, given), mine))
        _close_rungs(new, given)
        return new

    def done(self, state: State) -> FinishReason | None:
        return state.finish

    def best(self, state: State) -> Best:
        """Of the arms that are left, the one of the highest utility; `mean` is its score alone."""
        given = read(CombosParameters, state.setup.parameters)
        merits = _merits(state, given) if state.setup.own_judges else None
        arm: int = max(
            state.scratch["alive"], key=lambda one: _utility(state, one, given) if merits is None else merits[one]
        )
        found = _strategy(given).best(_inner(state, arm, given))
        return replace(found, candidate=_outer_id(arm, found.candidate), arm=arm)


def first_rung(setup: Setup, given: CombosParameters) -> int:
    """Rollouts per arm, so that all rungs together come to the budget."""
    if given.rung:
        return given.rung
    halvings = math.log(setup.arms, given.factor) if setup.arms > 1 else 0
    return max(FEWEST_ROLLOUTS, int(setup.rollouts / (setup.arms * (1 + halvings * (1 + PLAYOFF)))))


def quota(setup: Setup, given: CombosParameters, rung: int) -> int:
    """Rollouts that an arm may have had by the end of a rung."""
    shares: int = sum(given.factor**number for number in range(rung + 1))
    return first_rung(setup, given) * shares


def _strategy(given: CombosParameters) -> Strategy:
    return built_in(given.strategy)


def _inner_setup(setup: Setup, given: CombosParameters) -> Setup:
    return replace(setup, parameters=given.parameters, arms=1, own_judges=False)


def _outer_id(arm: int, candidate: str) -> str:
    return f"{arm}.{candidate}"


def _inner_id(candidate: str) -> str:
    return candidate.partition(".")[2]


def _keep(state: State, arm: int, inner: State) -> None:
    """Takes an arm's search into `state`."""
    for one in inner.candidates.values():
        parents = tuple(_outer_id(arm, parent) for parent in one.parents)
        state.candidates[_outer_id(arm, one.id)] = replace(one, id=_outer_id(arm, one.id), parents=parents)
    for candidate, scores in inner.scores.items():
        state.scores[_outer_id(arm, candidate)] = dict(scores)
    state.scratch["arms"][str(arm)] = {
        "strategy": inner.strategy,
        "phase": inner.phase,
        "step": inner.step,
        "counters": dict(inner.counters),
        "scratch": inner.scratch,
        "finish": inner.finish.value if inner.finish is not None else None,
    }


def _inner(state: State, arm: int, given: CombosParameters) -> State:
    kept, mine = state.scratch["arms"][str(arm)], f"{arm}."
    found = [one for one in state.candidates.values() if one.id.startswith(mine)]
    own = [
        replace(one, id=_inner_id(one.id), parents=tuple(_inner_id(parent) for parent in one.parents)) for one in found
    ]
    return State(
        strategy=kept["strategy"],
        setup=_inner_setup(state.setup, given),
        phase=kept["phase"],
        candidates={one.id: one for one in own},
        scores={_inner_id(name): dict(rows) for name, rows in state.scores.items() if name.startswith(mine)},
        step=kept["step"],
        counters=dict(kept["counters"]),
        scratch=kept["scratch"],
        finish=FinishReason(kept["finish"]) if kept["finish"] is not None else None,
    )


def _arm_plan(state: State, arm: int, given: CombosParameters) -> list[tuple[Item, Item]]:
    """What the arm's search asks for, as it says it and as the run does, as far as its rung allows."""
    if _through(state, arm, given):
        return []
    items = [(item, _placed(item, arm)) for item in _strategy(given).plan(_inner(state, arm, given))]
    if len(state.scratch["alive"]) == 1:
        return items
    room = quota(state.setup, given, state.scratch["rung"]) - _spent(state, arm)
    free = [pair for pair in items if not pair[0].rollouts]
    return free + [pair for pair in items if pair[0].rollouts][:room]


def _through(state: State, arm: int, given: CombosParameters) -> bool:
    """Whether the arm has nothing left to do in this rung; the last arm has no limit but the run's."""
    if state.scratch["arms"][str(arm)]["finish"] is not None:
        return True
    limit = quota(state.setup, given, state.scratch["rung"])
    return len(state.scratch["alive"]) > 1 and _spent(state, arm) >= limit


def _spent(state: State, arm: int) -> int:
    return int(state.scratch["spent"].get(str(arm), 0))


def _account(state: State, arm: int, answers: Sequence[Answer]) -> None:
    """Adds up what the arm's answers took: rollouts, and money for them."""
    rollouts = [one for one in answers if not isinstance(one, Proposed) and one.fresh]
    spent, cost = state.scratch["spent"], state.scratch["cost"]
    spent[str(arm)] = spent.get(str(arm), 0) + sum(2 if isinstance(one, Compared) else 1 for one in rollouts)
    cost[str(arm)] = cost.get(str(arm), 0.0) + sum(one.cost for one in rollouts)


def _close_rungs(state: State, given: CombosParameters) -> None:
    """Ends the rungs that all arms are through with, each with a playoff; of its arms the best third goes on."""
    while len(state.scratch["alive"]) > 1 and _all_through(state, given):
        if state.scratch["playoff"] is None:
            _open_playoff(state, given)
        if _playoff_plan(state):
            return
        _drop(state, given)
    if len(state.scratch["alive"]) == 1:
        (last,) = state.scratch["alive"]
        finish = state.scratch["arms"][str(last)]["finish"]
        state.finish = FinishReason(finish) if finish is not None else None


def _all_through(state: State, given: CombosParameters) -> bool:
    return all(_through(state, arm, given) for arm in state.scratch["alive"])


def _open_playoff(state: State, given: CombosParameters) -> None:
    setup, rung = state.setup, state.scratch["rung"]
    size = int(PLAYOFF * first_rung(setup, given)) * given.factor**rung
    bests = {
        str(arm): _outer_id(arm, _strategy(given).best(_inner(state, arm, given)).candidate)
        for arm in state.scratch["alive"]
    }
    state.scratch["playoff"] = {
        "bests": bests,
        "examples": list(some(setup.seed, "playoff", rung, setup.feedback, size)),
        "scores": {},
    }


def _playoff_plan(state: State) -> list[Evaluate]:
    """What is missing, example by example, so that a trimmed plan is fair."""
    playoff = state.scratch["playoff"]
    bests = sorted(((int(arm), best) for arm, best in playoff["bests"].items()))
    if state.setup.own_judges:
        return [
            Evaluate(candidate=best, example=example, arm=arm, reference=True)
            for example in (*state.setup.validation, *playoff["examples"])
            for arm, best in bests
            if example not in playoff["scores"].get(str(arm), {})
        ]
    return [
        replace(item, arm=arm)
        for example in playoff["examples"]
        for arm, best in bests
        for item in pool.missing(state, best, [example])
    ]


def _play(state: State, answers: Sequence[Answer]) -> None:
    known = {answer.key: answer for answer in answers}
    for item in _playoff_plan(state):
        answer = known.get(item.key)
        if isinstance(answer, Scored) and item.reference:
            state.scratch["playoff"]["scores"].setdefault(str(item.arm), {})[item.example] = answer.score
        elif isinstance(answer, Scored):
            state.scores.setdefault(item.candidate, {})[item.example] = answer.score


def _drop(state: State, given: CombosParameters) -> None:
    alive, playoff = state.scratch["alive"], state.scratch["playoff"]
    seen = (*state.setup.validation, *playoff["examples"])
    scores = {arm: _playoff_score(state, arm, seen) for arm in alive}
    ranked = sorted(alive, key=lambda arm: -_worth(state, arm, scores[arm], given))
    state.scratch["ranking"] = state.scratch.get("ranking", {}) | {str(arm): score for arm, score in scores.items()}
    state.scratch["alive"] = sorted(ranked[: math.ceil(len(ranked) / given.factor)])
    state.scratch["rung"] += 1
    state.scratch["playoff"] = None


def _playoff_score(state: State, arm: int, examples: Sequence[str]) -> float | None:
    """The mean of the arm's best prompt on the examples, by the judge that all arms share."""
    playoff = state.scratch["playoff"]
    if not state.setup.own_judges:
        return pool.mean(state, playoff["bests"][str(arm)], examples)
    return pool.mean_of(state, playoff["scores"].get(str(arm), {}), examples)


def _worth(state: State, arm: int, score: float | None, given: CombosParameters) -> float:
    return -math.inf if score is None else score - _price(state, arm, given)


def _merits(state: State, given: CombosParameters) -> dict[int, float]:
    """How the arms that are left stand by their common judge: by what there is of a playoff, else by the last one."""
    alive, playoff = state.scratch["alive"], state.scratch["playoff"]
    rows = [] if playoff is None else [set(playoff["scores"].get(str(arm), {})) for arm in alive]
    common = sorted(set.intersection(*rows)) if rows else []
    ranking = state.scratch.get("ranking", {})
    scores = {arm: _playoff_score(state, arm, common) if common else ranking.get(str(arm)) for arm in alive}
    return {arm: _worth(state, arm, score, given) for arm, score in scores.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmStanding:
    """How an arm has done: `score` as of the last playoff that it was in, None before any. Costs are of rollouts."""

    arm: int
    left: bool
    rollouts: int
    score: float | None
    cost_per_1000: float | None


def standings(state: State) -> list[ArmStanding]:
    """Of all arms of a search by combos, in their order."""
    cost = state.scratch["cost"]
    return [
        ArmStanding(
            arm=arm,
            left=arm in state.scratch["alive"],
            rollouts=_spent(state, arm),
            score=state.scratch.get("ranking", {}).get(str(arm)),
            cost_per_1000=1000 * cost[str(arm)] / _spent(state, arm) if _spent(state, arm) else None,
        )
        for arm in range(state.setup.arms)
    ]


def _utility(state: State, arm: int, given: CombosParameters) -> float:
    """The best prompt's mean, less what answers cost at the weight that cost has."""
    return _worth(state, arm, _strategy(given).best(_inner(state, arm, given)).mean, given)


def _price(state: State, arm: int, given: CombosParameters) -> float:
    """What 1,000 rollouts of the arm cost, in score."""
    cost: float = state.scratch["cost"].get(str(arm), 0.0)
    return given.cost_weight * 1000 * cost / max(_spent(state, arm), 1)


def _placed(item: Item, arm: int) -> Item:
    if isinstance(item, Evaluate):
        return replace(item, candidate=_outer_id(arm, item.candidate), arm=arm)
    if isinstance(item, Compare):
        return replace(item, first=_outer_id(arm, item.first), second=_outer_id(arm, item.second), arm=arm)
    return _placed_proposal(item, arm)


def _placed_proposal(item: Propose, arm: int) -> Propose:
    return replace(
        item,
        parent=_outer_id(arm, item.parent),
        second=None if item.second is None else _outer_id(arm, item.second),
        history=tuple((_outer_id(arm, one), score) for one, score in item.history),
        rejected=tuple(_outer_id(arm, one) for one in item.rejected),
        arm=arm,
    )
