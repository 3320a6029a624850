"""The search that refine (best) and reflect are two settings of: one parent, one child, one decision at a time."""

from collections.abc import Mapping
from dataclasses import dataclass

from llm_optimizer.strategies import pool
from llm_optimizer.strategies.frontier import merge_pair, merge_trial, pareto_parent
from llm_optimizer.strategies.interface import FinishReason, ProposalKind, State
from llm_optimizer.strategies.minibatch import minibatch
from llm_optimizer.strategies.phases import Phase, count
from llm_optimizer.strategies.trial import PERFECT_BATCHES, Ask, Baseline, Gate, Look, Race, feedback_tells
from utilities.draws import draws

PARETO_SHARE = 0.4
"""How often the parents `mix` are Pareto parents."""
MERGE_EVERY = 4
MERGES = 5
NOISE = 0.5
AT_LEAST_EQUAL = -1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The settings of a climb. `patience` counts iterations without a better mean in validation; 0 is for ever."""

    minibatch: int
    max_iterations: int
    patience: int
    parents: str = "best"
    history: bool = True
    golds: str = "never"
    merge: bool = False
    width: int = 1


def climbing(terms: Terms) -> Mapping[str, Phase]:
    climb = Climb(terms)
    return {
        "baseline": Baseline(climb.open),
        "look": Look(climb.next, climb.perfect),
        "propose": Ask(climb.next, climb.wants_golds, history=terms.history, width=terms.width),
        "gate": Gate(climb.next),
        "race": Race(climb.validated, climb.next),
    }


class Climb:
    """What happens between two iterations."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms

    def wants_golds(self, state: State) -> bool:
        wanted = self._terms.golds
        return wanted == "always" or (wanted == "auto" and not feedback_tells(state))

    def next(self, state: State) -> None:
        """After an iteration that found nothing better."""
        idle = count(state, "idle")
        if self._terms.patience and idle >= self._terms.patience:
            state.finish = state.finish or FinishReason.NO_IMPROVEMENT
        self.open(state)

    def perfect(self, state: State) -> None:
        """After a minibatch without a fault: there is nothing to learn from it."""
        if count(state, "perfect") >= PERFECT_BATCHES:
            state.finish = FinishReason.PERFECT
        self.open(state)

    def validated(self, state: State) -> None:
        """After a child's last validation example."""
        count(state, "accepted")
        gaps = pool.differences(state, state.scratch["child"], state.scratch["rival"], state.setup.validation)
        if gaps and sum(gaps) > 0:
            state.counters["idle"] = 0
            self.open(state)
        else:
            self.next(state)

    def open(self, state: State) -> None:
        if state.step >= self._terms.max_iterations:
            state.finish = state.finish or FinishReason.ITERATIONS
        if state.finish is not None:
            return
        state.step += 1
        pair = merge_pair(state) if self._merge_is_due(state) else None
        if pair is None:
            self._open_edit(state)
        else:
            count(state, "merges")
            state.scratch = merge_trial(state, *pair, margin=AT_LEAST_EQUAL)
            state.phase = "propose"

    def _merge_is_due(self, state: State) -> bool:
        accepted = state.counters.get("accepted", 0)
        due = accepted // MERGE_EVERY > state.counters.get("merges", 0)
        return self._terms.merge and due and state.counters.get("merges", 0) < MERGES

    def _open_edit(self, state: State) -> None:
        setup, parent = state.setup, self._parent(state)
        batch = minibatch(setup.seed, setup.feedback, self._terms.minibatch, count(state, "batches") - 1)
        state.phase = "look"
        state.scratch = {
            "parent": parent,
            "batch": list(batch),
            "shown": {},
            "item": {"kind": ProposalKind.EDIT.value, "second": None, "wins": [[], []]},
            "against": [parent],
            "margin": NOISE * len(batch) * setup.judge_noise,
        }

    def _parent(self, state: State) -> str:
        kind = self._terms.parents
        if kind == "mix":
            kind = "pareto" if draws(state.setup.seed, "mix", state.step).random() < PARETO_SHARE else "best"
        return pareto_parent(state) if kind == "pareto" else pool.newest_best(state)
