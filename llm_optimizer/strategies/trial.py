"""The road of a new text that refine and reflect share: look, propose, gate on the minibatch, race on validation.

`scratch` holds the open iteration: `parent`, `batch` (examples), `shown` (example to [output, score, feedback, tells]),
`item` (what is proposed and how: kind, second, wins), `against` and `margin` (whom the child must beat on the batch,
and by how much in sum), `child` and `rival` (the best when the child went into validation); where several texts are
made at a time, `answered` (serials) and `children`, of which the best on the batch becomes the child.
"""

from collections.abc import Callable
from statistics import fmean
from typing import Any

from llm_optimizer.strategies import candidates, pool
from llm_optimizer.strategies.interface import (
    Evaluate,
    FinishReason,
    Item,
    ProposalKind,
    Propose,
    Scored,
    Shown,
    State,
)
from llm_optimizer.strategies.minibatch import some
from llm_optimizer.strategies.phases import Answers, Phase, count, proposals

BLOCK = 10
HISTORY = 8
REJECTED = 5
GOLDS = 3
PERFECT_BATCHES = 5
BARREN = 10
"""So many proposals in a row that could not be tried end the search."""
LONGEST_FIELD = 1500
MOSTLY = 0.5

Next = Callable[[State], None]
"""Opens the next iteration, or finishes."""
GoldsWanted = Callable[[State], bool]


class Baseline(Phase):
    """The first prompt on all validation examples."""

    def __init__(self, then: Next) -> None:
        self._then = then

    def plan(self, state: State) -> list[Item]:
        return [*pool.missing(state, pool.SEED, state.setup.validation)]

    def take(self, state: State, _answers: Answers, /) -> None:
        if pool.complete(state, pool.SEED):
            self._then(state)


class Look(Phase):
    """The parent on the minibatch: what it answers, and what is said about that."""

    def __init__(self, then: Next, perfect: Next) -> None:
        self._then = then
        self._perfect = perfect

    def plan(self, state: State) -> list[Item]:
        open_ = state.scratch
        left = [example for example in open_["batch"] if example not in open_["shown"]]
        return [Evaluate(candidate=open_["parent"], example=example) for example in left]

    def take(self, state: State, answers: Answers, /) -> None:
        show(state, answers)
        if self.plan(state):
            return
        scores = [row[1] for row in state.scratch["shown"].values() if row[1] is not None]
        if not scores:
            self._then(state)
        elif min(scores) >= 1:
            self._perfect(state)
        else:
            state.counters["perfect"] = 0
            state.phase = "propose"


class Ask(Phase):
    """A meta call, whose text becomes the child; or `width` of them at once, for an edit."""

    def __init__(self, then: Next, wants_golds: GoldsWanted, *, history: bool, width: int = 1) -> None:
        self._then = then
        self._wants_golds = wants_golds
        self._history = history
        self._width = width

    def plan(self, state: State) -> list[Item]:
        done = state.scratch.get("answered", [])
        return [self._proposal(state, serial) for serial in self._serials(state) if serial not in done]

    def _serials(self, state: State) -> list[int]:
        """Each used once in a search: a step's own, or as many for every step as an edit may take."""
        if self._width == 1:
            return [state.step]
        count_ = 1 if state.scratch["item"]["kind"] == ProposalKind.MERGE else self._width
        return [state.step * self._width + place for place in range(count_)]

    def _proposal(self, state: State, serial: int) -> Propose:
        open_ = state.scratch
        item, parent = open_["item"], open_["parent"]
        golds = some(state.setup.seed, "golds", state.step, state.setup.golds, GOLDS)
        first, second = item["wins"]
        return Propose(
            serial=serial,
            kind=ProposalKind(item["kind"]),
            parent=parent,
            second=item["second"],
            score=pool.mean(state, parent),
            shown=shown(open_["shown"]),
            golds=golds if open_["shown"] and self._wants_golds(state) else (),
            history=pool.ranked(state, HISTORY) if self._history else (),
            rejected=pool.beaten(state, REJECTED) if self._history else (),
            wins=(tuple(first), tuple(second)),
        )

    def take(self, state: State, answers: Answers, /) -> None:
        open_, item = state.scratch, state.scratch["item"]
        parents = tuple(one for one in (open_["parent"], item["second"]) if one is not None)
        for serial in self._serials(state):
            found = proposals(answers, f"propose/0/{serial}")
            if found is None or serial in open_.get("answered", []):
                continue
            open_.setdefault("answered", []).append(serial)
            open_.setdefault("made", 0)
            if found:
                open_["made"] += 1
                child = candidates.add(state, found[0], parents, item["kind"])
                open_["children"] = [*open_.get("children", []), *([] if child.rejected else [child.id])]
        if self.plan(state):
            return
        if open_.get("children"):
            state.counters["barren"] = 0
            open_["child"] = open_["children"][0]
            state.phase = "gate"
        else:
            barren(state, failed=not open_["made"])
            self._then(state)


class Gate(Phase):
    """The child on the minibatch: it goes on only when it does better there than those it comes from, and than its
    siblings."""

    def __init__(self, then: Next) -> None:
        self._then = then

    def plan(self, state: State) -> list[Item]:
        open_ = state.scratch
        children = open_.get("children") or [open_["child"]]
        return [item for child in children for item in pool.missing(state, child, open_["batch"])]

    def take(self, state: State, _answers: Answers, /) -> None:
        if self.plan(state):
            return
        open_ = state.scratch
        children = open_.get("children") or [open_["child"]]
        leads = {child: _leads(state, child) for child in children}
        passed = [child for child in children if all(gap and sum(gap) > open_["margin"] for gap in leads[child])]
        best = max(passed, key=lambda child: min(map(sum, leads[child])), default=None)
        for child in children:
            if child != best:
                lead = min((fmean(gap) for gap in leads[child] if gap), default=None)
                told = "nothing to compare" if lead is None else f"{lead:+.3f} on {len(open_['batch'])} examples"
                candidates.reject(state, child, f"{pool.GATE}: {told}")
        if best is None:
            self._then(state)
        else:
            open_["child"], open_["rival"] = best, pool.newest_best(state)
            state.phase = "race"


def _leads(state: State, child: str) -> list[list[float]]:
    """Its paired differences on the batch to each that it has to beat."""
    batch = state.scratch["batch"]
    return [pool.differences(state, child, rival, batch) for rival in state.scratch["against"]]


class Race(Phase):
    """The child on the validation examples, block by block in their order, until it is clearly behind the best."""

    def __init__(self, won: Next, lost: Next) -> None:
        self._won = won
        self._lost = lost

    def plan(self, state: State) -> list[Item]:
        return [*block(state, state.scratch["child"])]

    def take(self, state: State, _answers: Answers, /) -> None:
        child, order = state.scratch["child"], state.setup.validation
        left = len(pool.missing(state, child, order))
        gaps = pool.differences(state, child, state.scratch["rival"], order)
        if not left:
            self._won(state)
        elif (len(order) - left) % BLOCK == 0 and pool.hopeless(gaps):
            candidates.reject(state, child, f"{pool.RACE}: {fmean(gaps):+.3f} after {len(gaps)} examples")
            self._lost(state)


def block(state: State, candidate: str) -> list[Evaluate]:
    """What is missing of the candidate's first unfinished block of validation examples."""
    order = state.setup.validation
    for start in range(0, len(order), BLOCK):
        if left := pool.missing(state, candidate, order[start : start + BLOCK]):
            return left
    return []


def show(state: State, answers: Answers) -> None:
    """Takes what the parent answered on the minibatch into the open iteration."""
    for example in state.scratch["batch"]:
        answer = answers.get(Evaluate(candidate=state.scratch["parent"], example=example).key)
        if isinstance(answer, Scored):
            texts = answer.output[:LONGEST_FIELD], answer.feedback[:LONGEST_FIELD]
            state.scratch["shown"][example] = [texts[0], answer.score, texts[1], answer.tells]


def shown(rows: dict[str, list[Any]]) -> tuple[Shown, ...]:
    """The failures, the worst first, and one success; what has no score is left out."""
    scored = [
        Shown(example=example, output=output, score=score, feedback=feedback)
        for example, (output, score, feedback, _) in sorted(rows.items())
        if score is not None
    ]
    failures = sorted((one for one in scored if one.score < 1), key=lambda one: one.score)
    return tuple(failures + [one for one in scored if one.score >= 1][:1])


def feedback_tells(state: State) -> bool:
    """Whether the feedback on most failures of the minibatch shows what was expected."""
    tells = [bool(row[3]) for row in state.scratch["shown"].values() if row[1] is not None and row[1] < 1]
    return bool(tells) and fmean(tells) >= MOSTLY


def barren(state: State, *, failed: bool) -> None:
    """A proposal that could not be tried: too many in a row end the search."""
    if count(state, "barren") >= BARREN:
        state.finish = FinishReason.ERROR if failed else FinishReason.NO_IMPROVEMENT
