"""Beam search with textual gradients: every prompt of the beam is edited several ways, the children and their parents
compete on the validation examples by successive rejects, or by upper confidence bounds.

Source: Pryzant et al., "Automatic Prompt Optimization with Gradient Descent and Beam Search" (arXiv 2305.03495) and its
published code. There a critique and the edit by it are two calls; here one answer holds both (rationale and prompt).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from llm_optimizer.strategies import candidates, pool
from llm_optimizer.strategies.beam_selection import FIRST_ROUND, Bounds, Rejects
from llm_optimizer.strategies.interface import (
    Best,
    Evaluate,
    FinishReason,
    Item,
    ProposalKind,
    Propose,
    Scored,
    Setup,
    Shown,
    State,
)
from llm_optimizer.strategies.minibatch import minibatch, some
from llm_optimizer.strategies.parameters import choice, read, share, switch
from llm_optimizer.strategies.parameters import count as whole
from llm_optimizer.strategies.phases import Answers, Phase, PhasedStrategy, opening, proposals
from llm_optimizer.strategies.trial import LONGEST_FIELD, barren

SERIALS = 1000
"""More than the proposals of one step."""
PARAPHRASES = 500
"""More than the edits of one step."""
MOST_CHILDREN = 8
"""Of one prompt of the beam; which ones is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamParameters:
    """`gradients` is how many edits each prompt of the beam gets, each from up to `errors` wrong answers; `paraphrase`
    adds another wording of each. `exploration` is for the selection `bounds`: how much not knowing is worth.
    """

    width: int = whole(4, 1, 16)
    minibatch: int = whole(16, 1, 64)
    gradients: int = whole(3, 1, 8)
    errors: int = whole(4, 1, 16)
    rounds: int = whole(100, 1, 10_000)
    paraphrase: bool = switch(False)
    selection: str = choice("rejects", "bounds")
    exploration: float = share(0.25, 0.0, 10.0)


class Beam(PhasedStrategy):
    name = "beam"

    def start(self, setup: Setup) -> State:
        given = read(BeamParameters, setup.parameters)
        state = opening(self.name, setup, "look")
        _open(state, [pool.SEED], given)
        return state

    def phases(self, state: State) -> Mapping[str, Phase]:
        given = read(BeamParameters, state.setup.parameters)
        return {
            "look": LookAtAll(),
            "propose": Edits(given),
            "paraphrase": Paraphrases(given),
            "select": _selection(given),
        }

    def best(self, state: State) -> Best:
        first = state.scratch["beam"][0]
        return Best(candidate=first, mean=pool.mean(state, first))


class LookAtAll(Phase):
    """Every prompt of the beam on the same minibatch. `errors[prompt]` collects [example, output, score, feedback]."""

    def plan(self, state: State) -> list[Item]:
        seen = state.scratch["seen"]
        return [
            item
            for prompt in state.scratch["beam"]
            for example in state.scratch["batch"]
            if (item := Evaluate(candidate=prompt, example=example)).key not in seen
        ]

    def take(self, state: State, answers: Answers, /) -> None:
        for item in self.plan(state):
            answer = answers.get(item.key)
            if isinstance(item, Evaluate) and isinstance(answer, Scored):
                state.scratch["seen"].append(item.key)
                if answer.score is not None and answer.score < 1:
                    row = [item.example, answer.output[:LONGEST_FIELD], answer.score, answer.feedback[:LONGEST_FIELD]]
                    state.scratch["errors"].setdefault(item.candidate, []).append(row)
        if self.plan(state):
            return
        state.phase = "propose"
        if not state.scratch["errors"]:
            state.finish = FinishReason.PERFECT


def _take_in(state: State, items: list[Propose], answers: Answers) -> None:
    """What new meta calls proposed, one text each, into the field."""
    for item in items:
        found = proposals(answers, item.key)
        if found is None or item.serial in state.scratch["edited"]:
            continue
        state.scratch["edited"].append(item.serial)
        made = [candidates.add(state, one, (item.parent,), item.kind.value) for one in found]
        state.scratch["field"] += [child.id for child in made if child.rejected is None]


class Edits(Phase):
    """The meta calls. `edited` has the serials that are answered."""

    def __init__(self, given: BeamParameters) -> None:
        self._given = given

    def plan(self, state: State) -> list[Item]:
        return [item for item in self._all(state) if item.serial not in state.scratch["edited"]]

    def take(self, state: State, answers: Answers, /) -> None:
        _take_in(state, self._all(state), answers)
        if self.plan(state):
            return
        if not state.scratch["field"]:
            barren(state, failed=False)
            _open(state, state.scratch["beam"], self._given)
            return
        state.counters["barren"] = 0
        if self._given.paraphrase:
            state.scratch["originals"] = list(state.scratch["field"])
            state.phase = "paraphrase"
        else:
            _compete(state)

    def _all(self, state: State) -> list[Propose]:
        errors: dict[str, list[list[object]]] = state.scratch["errors"]
        serials = range(self._given.gradients)
        return [
            self._edit(state, prompt, state.step * SERIALS + place * self._given.gradients + number)
            for place, prompt in enumerate(state.scratch["beam"])
            if errors.get(prompt)
            for number in serials
        ]

    def _edit(self, state: State, prompt: str, serial: int) -> Propose:
        rows = {str(row[0]): row for row in state.scratch["errors"][prompt]}
        chosen = some(state.setup.seed, "errors", serial, list(rows), self._given.errors)
        shown = tuple(
            Shown(example=one, output=rows[one][1], score=rows[one][2], feedback=rows[one][3]) for one in chosen
        )
        return Propose(serial=serial, kind=ProposalKind.EDIT, parent=prompt, shown=shown)


class Paraphrases(Phase):
    """Another wording of each child, by a meta call without feedback."""

    def __init__(self, given: BeamParameters) -> None:
        self._given = given

    def plan(self, state: State) -> list[Item]:
        return [item for item in self._all(state) if item.serial not in state.scratch["edited"]]

    def take(self, state: State, answers: Answers, /) -> None:
        _take_in(state, self._all(state), answers)
        if not self.plan(state):
            _compete(state)

    def _all(self, state: State) -> list[Propose]:
        first = state.step * SERIALS + PARAPHRASES
        return [
            Propose(serial=first + place, kind=ProposalKind.PARAPHRASE, parent=child)
            for place, child in enumerate(state.scratch["originals"])
        ]


def _selection(given: BeamParameters) -> Phase:
    def then(state: State, beam: list[str]) -> None:
        _open(state, beam, given)

    return Rejects(given.width, then) if given.selection == "rejects" else Bounds(given.width, given.exploration, then)


def _compete(state: State) -> None:
    """From children to the field that they and the beam make."""
    scratch = state.scratch
    families: dict[str, list[str]] = {}
    for child in scratch["field"]:
        families.setdefault(_root(state, child), []).append(child)
    drawn: set[str] = set()
    for place, one in enumerate(scratch["beam"]):
        serial = state.step * SERIALS + place
        drawn |= set(some(state.setup.seed, "children", serial, families.get(one, []), MOST_CHILDREN))
    for child in scratch["field"]:
        if child not in drawn:
            candidates.reject(state, child, f"{pool.GATE}: not drawn, there were more than {MOST_CHILDREN}")
    scratch["field"] = [*scratch["beam"], *(child for child in scratch["field"] if child in drawn)]
    state.phase = "select"


def _root(state: State, child: str) -> str:
    """The prompt of the beam that it comes from."""
    while child not in state.scratch["beam"]:
        child = state.candidates[child].parents[0]
    return child


def _open(state: State, beam: list[str], given: BeamParameters) -> None:
    """The round that starts from `beam`, the best first; or the end."""
    batch = minibatch(state.setup.seed, state.setup.feedback, given.minibatch, state.step)
    state.scratch = {
        "beam": list(beam),
        "batch": list(batch),
        "seen": [],
        "errors": {},
        "edited": [],
        "field": [],
        "sight": FIRST_ROUND,
    }
    if state.step >= given.rounds:
        state.finish = state.finish or FinishReason.ITERATIONS
    elif state.finish is None:
        state.step += 1
        state.phase = "look"
