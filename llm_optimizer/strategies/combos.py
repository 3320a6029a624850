"""Which combination of models to optimize with: every combination gets a little, the better third three times as much.

Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification" (arXiv 1502.07943), successive halving. An arm
is one combination of working, judge and meta-model with a search of its own, which goes on where it stopped when the
arm survives. All arms are ranked on the same examples by one judge, in a playoff: scores of different judges say
nothing about the models.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from llm_optimizer.strategies import arms, playoff
from llm_optimizer.strategies.interface import (
    Answer,
    Best,
    Compared,
    FinishReason,
    Item,
    Proposed,
    Setup,
    State,
)
from llm_optimizer.strategies.parameters import read
from llm_optimizer.strategies.state_codec import copied

FEWEST_ROLLOUTS = 60
"""In the first rung: with fewer the ranking is mostly noise."""


class Combos:
    """See the module."""

    name = "combos"

    def start(self, setup: Setup) -> State:
        given = read(arms.CombosParameters, setup.parameters)
        state = State(strategy=self.name, setup=setup, phase="rung")
        every = range(setup.arms)
        state.scratch = {"alive": list(every), "rung": 0, "arms": {}, "spent": {}, "cost": {}, "playoff": None}
        for arm in every:
            arms.keep(state, arm, arms.strategy_of(given).start(arms.inner_setup(setup, given)))
        return state

    def plan(self, state: State) -> tuple[Item, ...]:
        if state.finish is not None:
            return ()
        if state.scratch["playoff"] is not None:
            return tuple(playoff.plan(state))
        given = read(arms.CombosParameters, state.setup.parameters)
        return tuple(item for arm in state.scratch["alive"] for _, item in _arm_plan(state, arm, given))

    def apply(self, state: State, answers: Sequence[Answer]) -> State:
        given = read(arms.CombosParameters, state.setup.parameters)
        new = copied(state)
        if state.scratch["playoff"] is not None:
            playoff.play(new, answers)
            _close_rungs(new, given)
            return new
        for arm in state.scratch["alive"]:
            names = {item.key: own.key for own, item in _arm_plan(state, arm, given)}
            mine = [replace(answer, key=names[answer.key]) for answer in answers if answer.key in names]
            if mine:
                _account(new, arm, mine)
                arms.keep(new, arm, arms.strategy_of(given).apply(arms.inner_of(state, arm, given), mine))
        _close_rungs(new, given)
        return new

    def done(self, state: State) -> FinishReason | None:
        return state.finish

    def best(self, state: State) -> Best:
        """Of the arms that are left, the one of the highest utility; `mean` is its score alone."""
        given = read(arms.CombosParameters, state.setup.parameters)
        merits = playoff.merits(state, given) if state.setup.own_judges else None
        arm: int = max(
            state.scratch["alive"], key=lambda one: _utility(state, one, given) if merits is None else merits[one]
        )
        found = arms.strategy_of(given).best(arms.inner_of(state, arm, given))
        return replace(found, candidate=arms.outer_id(arm, found.candidate), arm=arm)


def first_rung(setup: Setup, given: arms.CombosParameters) -> int:
    """Rollouts per arm, so that all rungs together come to the budget."""
    if given.rung:
        return given.rung
    halvings = math.log(setup.arms, given.factor) if setup.arms > 1 else 0
    common = playoff.COMMON * playoff.SHARE * max(halvings - 1, 0)
    return max(FEWEST_ROLLOUTS, int(setup.rollouts / (setup.arms * (1 + halvings * (1 + playoff.SHARE) + common))))


def quota(setup: Setup, given: arms.CombosParameters, rung: int) -> int:
    """Rollouts that an arm may have had by the end of a rung."""
    shares: int = sum(given.factor**number for number in range(rung + 1))
    return first_rung(setup, given) * shares


def _arm_plan(state: State, arm: int, given: arms.CombosParameters) -> list[tuple[Item, Item]]:
    """What the arm's search asks for, as it says it and as the run does, as far as its rung allows."""
    if _through(state, arm, given):
        return []
    items = [(item, arms.placed(item, arm)) for item in arms.strategy_of(given).plan(arms.inner_of(state, arm, given))]
    if len(state.scratch["alive"]) == 1:
        return items
    room = quota(state.setup, given, state.scratch["rung"]) - arms.spent(state, arm)
    free = [pair for pair in items if not pair[0].rollouts]
    return free + [pair for pair in items if pair[0].rollouts][:room]


def _through(state: State, arm: int, given: arms.CombosParameters) -> bool:
    """Whether the arm has nothing left to do in this rung; the last arm has no limit but the run's."""
    if state.scratch["arms"][str(arm)]["finish"] is not None:
        return True
    limit = quota(state.setup, given, state.scratch["rung"])
    return len(state.scratch["alive"]) > 1 and arms.spent(state, arm) >= limit


def _account(state: State, arm: int, answers: Sequence[Answer]) -> None:
    """Adds up what the arm's answers took: rollouts, and money for them."""
    rollouts = [one for one in answers if not isinstance(one, Proposed) and one.fresh]
    spent, cost = state.scratch["spent"], state.scratch["cost"]
    spent[str(arm)] = spent.get(str(arm), 0) + sum(2 if isinstance(one, Compared) else 1 for one in rollouts)
    cost[str(arm)] = cost.get(str(arm), 0.0) + sum(one.cost for one in rollouts)


def _close_rungs(state: State, given: arms.CombosParameters) -> None:
    """Ends the rungs that all arms are through with, each with a playoff; of its arms the best third goes on."""
    while len(state.scratch["alive"]) > 1 and _all_through(state, given):
        if state.scratch["playoff"] is None:
            playoff.opened(state, given, first_rung(state.setup, given))
        if playoff.plan(state):
            return
        _drop(state, given)
    if len(state.scratch["alive"]) == 1:
        (last,) = state.scratch["alive"]
        finish = state.scratch["arms"][str(last)]["finish"]
        state.finish = FinishReason(finish) if finish is not None else None


def _all_through(state: State, given: arms.CombosParameters) -> bool:
    return all(_through(state, arm, given) for arm in state.scratch["alive"])


def _drop(state: State, given: arms.CombosParameters) -> None:
    alive = state.scratch["alive"]
    scores = {arm: playoff.score(state, arm, given) for arm in alive}
    own = {arm: playoff.own_score(state, arm, playoff.seen(state)) or 0.0 for arm in alive}
    ranked = sorted(alive, key=lambda arm: (-arms.worth(state, arm, scores[arm], given), -own[arm]))
    state.scratch["ranking"] = state.scratch.get("ranking", {}) | {str(arm): score for arm, score in scores.items()}
    left = sorted(ranked[: math.ceil(len(ranked) / given.factor)])
    for arm in left:
        playoff.adopt(state, arm, given)
    state.scratch["alive"] = left
    state.scratch["rung"] += 1
    state.scratch["playoff"] = None


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
            rollouts=arms.spent(state, arm),
            score=state.scratch.get("ranking", {}).get(str(arm)),
            cost_per_1000=1000 * cost[str(arm)] / arms.spent(state, arm) if arms.spent(state, arm) else None,
        )
        for arm in range(state.setup.arms)
    ]


def _utility(state: State, arm: int, given: arms.CombosParameters) -> float:
    """The best prompt's mean, less what answers cost at the weight that cost has."""
    return arms.worth(state, arm, arms.strategy_of(given).best(arms.inner_of(state, arm, given)).mean, given)
