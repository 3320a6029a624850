"""Search without labels: a pairwise judge says which of two answers is better, and the prompts play a tournament.

Source: "LLM Prompt Duel Optimizer" (arXiv 2510.13907): double Thompson sampling over the Beta posteriors of the pairs'
win rates, mutation of the Copeland winner, pruning of the worst.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from llm_optimizer.strategies import candidates, pool
from llm_optimizer.strategies.interface import Best, Compare, FinishReason, Item, ProposalKind, Propose, Setup, State
from llm_optimizer.strategies.minibatch import minibatch
from llm_optimizer.strategies.parameters import count as whole
from llm_optimizer.strategies.parameters import read
from llm_optimizer.strategies.phases import Answers, Phase, PhasedStrategy, compared, count, opening, proposals
from llm_optimizer.strategies.trial import barren
from utilities.draws import draws

DECIDED = 2.0
"""A pair whose win rate is further from a half than so many standard deviations is not asked about again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DuelParameters:
    """`mutate_every` counts rounds; each makes `mutants` new prompts, and the worst go until `pool` are left."""

    rounds: int = whole(30, 1, 10_000)
    inputs: int = whole(10, 1, 100)
    pool: int = whole(6, 2, 50)
    mutants: int = whole(3, 1, 16)
    mutate_every: int = whole(10, 1, 1_000)


class Duel(PhasedStrategy):
    name = "duel"

    def start(self, setup: Setup) -> State:
        read(DuelParameters, setup.parameters)
        return opening(self.name, setup, "mutate", pool=[pool.SEED], wins={}, pair=[], batch=[], met=[], liked=[])

    def phases(self, state: State) -> Mapping[str, Phase]:
        given = read(DuelParameters, state.setup.parameters)
        return {"mutate": Mutate(given), "duel": Round(given)}

    def best(self, state: State) -> Best:
        """`mean` is the win rate over the pool."""
        winner = copeland(state)
        others = [one for one in state.scratch["pool"] if one != winner]
        rates = [rate(state, winner, other) for other in others]
        return Best(candidate=winner, mean=sum(rates) / len(rates) if rates else None)


class Mutate(Phase):
    """One meta call for variants of the winner so far."""

    def __init__(self, given: DuelParameters) -> None:
        self._given = given

    def plan(self, state: State) -> list[Item]:
        serial, winner = state.counters.get("mutations", 0), copeland(state)
        return [Propose(serial=serial, kind=ProposalKind.MUTATE, parent=winner, count=self._given.mutants)]

    def take(self, state: State, answers: Answers, /) -> None:
        (asked,) = self.plan(state)
        found = proposals(answers, asked.key)
        if found is None:
            return
        winner = copeland(state)
        count(state, "mutations")
        made = [candidates.add(state, one, (winner,), ProposalKind.MUTATE.value) for one in found]
        new = [child.id for child in made if child.rejected is None]
        _prune(state, self._given.pool - len(new), keep=winner)
        state.scratch["pool"] += new
        if new:
            state.counters["barren"] = 0
        else:
            barren(state, failed=not found)
        if len(state.scratch["pool"]) > 1:
            _open(state, self._given)


class Round(Phase):
    """One pair on a few inputs."""

    def __init__(self, given: DuelParameters) -> None:
        self._given = given

    def plan(self, state: State) -> list[Item]:
        (first, second), met = state.scratch["pair"], state.scratch["met"]
        left = [example for example in state.scratch["batch"] if example not in met]
        return [Compare(first=first, second=second, example=example) for example in left]

    def take(self, state: State, answers: Answers, /) -> None:
        for item in self.plan(state):
            answer = compared(answers, item.key)
            if answer is not None and isinstance(item, Compare):
                _count(state, item, answer.winner)
        if self.plan(state):
            return
        if state.step >= self._given.rounds:
            state.finish = FinishReason.ITERATIONS
        elif state.step % self._given.mutate_every == 0:
            state.phase = "mutate"
        else:
            _open(state, self._given)


def rate(state: State, one: str, other: str) -> float:
    """The expected share of inputs on which `one` is liked better, from a half where nothing is known."""
    won, lost = _record(state, one, other)
    return won / (won + lost)


def copeland(state: State) -> str:
    """The prompt of the pool that beats most others; of equals the one that beats them more clearly, then the older."""
    members: list[str] = state.scratch["pool"]

    def merit(one: str) -> tuple[int, float]:
        rates = [rate(state, one, other) for other in members if other != one]
        return sum(value > 0.5 for value in rates), sum(rates)

    return max(members, key=merit)


def _record(state: State, one: str, other: str) -> tuple[float, float]:
    """The parameters of the Beta posterior of `one` being liked better than `other`."""
    wins = state.scratch["wins"]
    return 1 + wins.get(f"{one}>{other}", 0), 1 + wins.get(f"{other}>{one}", 0)


def _count(state: State, item: Compare, winner: str | None) -> None:
    state.scratch["met"].append(item.example)
    count(state, "asked")
    count(state, "unscored", int(winner is None))
    share = {"first": (1.0, 0.0), "second": (0.0, 1.0), "tie": (0.5, 0.5)}.get(winner or "", (0.0, 0.0))
    wins, weight = state.scratch["wins"], pool.weight(state, item.example)
    for name, won in zip(
        (f"{item.first}>{item.second}", f"{item.second}>{item.first}"),
        share,
        strict=True,
    ):
        wins[name] = wins.get(name, 0) + weight * won


def _prune(state: State, room: int, *, keep: str) -> None:
    """Leaves the `room` members that win most often, `keep` always among them."""
    members: list[str] = state.scratch["pool"]

    def merit(one: str) -> float:
        return sum(rate(state, one, other) for other in members if other != one)

    ranked = sorted((one for one in members if one != keep), key=lambda one: -merit(one))
    for one in ranked[max(room - 1, 0) :]:
        candidates.reject(state, one, f"{pool.RACE}: liked least in the pool")
    state.scratch["pool"] = [keep, *ranked[: max(room - 1, 0)]]


def _open(state: State, given: DuelParameters) -> None:
    """The next round: its pair by double Thompson sampling, and its inputs."""
    seed = state.setup.seed
    state.scratch["batch"] = list(minibatch(seed, state.setup.feedback, given.inputs, state.step))
    state.step += 1
    drawn = draws(seed, "duel", state.step)
    first = _champion(state, drawn)
    state.scratch["pair"] = [first, _challenger(state, first, drawn)]
    state.scratch["met"] = []
    state.phase = "duel"


def _champion(state: State, drawn: Random) -> str:
    """Who beats most others in one draw of all win rates."""
    members: list[str] = state.scratch["pool"]
    beaten = dict.fromkeys(members, 0)
    for place, one in enumerate(members):
        for other in members[place + 1 :]:
            winner = one if drawn.betavariate(*_record(state, one, other)) > 0.5 else other
            beaten[winner] += 1
    return max(members, key=lambda one: beaten[one])


def _challenger(state: State, champion: str, drawn: Random) -> str:
    """Who does best against the champion in a second draw, of those about whom it is not decided yet."""
    others: list[str] = [one for one in state.scratch["pool"] if one != champion]
    rates = {one: drawn.betavariate(*_record(state, one, champion)) for one in others}
    return max([one for one in others if _open_question(state, one, champion)] or others, key=lambda one: rates[one])


def _open_question(state: State, one: str, other: str) -> bool:
    won, lost = _record(state, one, other)
    total = won + lost
    spread = math.sqrt(won * lost / (total * total * (total + 1)))
    return abs(won / total - 0.5) <= DECIDED * spread
