"""By what combos ranks its arms at the end of a rung. Pure.

The best prompts of all arms of the rung meet on further examples, the same for all: the few of validation would let
luck decide. Where arms search by judges of their own, the playoff has the validation examples too, and all of it is
scored by the judge that they share. From the second rung on all arms answer with the leader's prompt too: with prompts
of their own the luck of a search hides what the models are worth, and one prompt for all tells it. Who goes on takes
that prompt over where it is better than its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from llm_optimizer.strategies import arms, pool
from llm_optimizer.strategies.interface import Answer, Candidate, Evaluate, Scored, State
from llm_optimizer.strategies.minibatch import some

SHARE = 0.25
"""The rollouts with the arms' own prompts, as a share of those of the rung."""
COMMON = 2
"""How many times as many examples the arms answer with the leader's prompt as with their own."""


def opened(state: State, given: arms.CombosParameters, first_rung: int) -> None:
    """`first_rung` is how many rollouts each arm had in the first one."""
    setup, rung = state.setup, state.scratch["rung"]
    size = int(SHARE * first_rung) * given.factor**rung
    bests = {
        str(arm): arms.outer_id(arm, arms.strategy_of(given).best(arms.inner_of(state, arm, given)).candidate)
        for arm in state.scratch["alive"]
    }
    state.scratch["playoff"] = {
        "bests": bests,
        "examples": list(some(setup.seed, "playoff", rung, setup.feedback, size)),
        "scores": {},
        "common": [*setup.validation, *some(setup.seed, "common", rung, setup.feedback, COMMON * size)] if rung else [],
        "shared": {},
    }


def plan(state: State) -> list[Evaluate]:
    """What is missing, example by example, so that a trimmed plan is fair."""
    return _own_plan(state) or _common_plan(state)


def _own_plan(state: State) -> list[Evaluate]:
    """The arms' own prompts."""
    playoff = state.scratch["playoff"]
    bests = sorted(((int(arm), best) for arm, best in playoff["bests"].items()))
    if state.setup.own_judges:
        return [
            Evaluate(candidate=best, example=example, arm=arm, reference=True)
            for example in seen(state)
            for arm, best in bests
            if example not in playoff["scores"].get(str(arm), {})
        ]
    return [
        replace(item, arm=arm)
        for example in playoff["examples"]
        for arm, best in bests
        for item in pool.missing(state, best, [example])
    ]


def _common_plan(state: State) -> list[Evaluate]:
    """The leader's prompt, for all arms."""
    playoff = state.scratch["playoff"]
    if not playoff.get("common"):
        return []
    leader = playoff["bests"][str(_leader(state))]
    return [
        Evaluate(candidate=leader, example=example, arm=arm, reference=state.setup.own_judges)
        for example in playoff["common"]
        for arm in state.scratch["alive"]
        if example not in playoff["shared"].get(str(arm), {})
    ]


def seen(state: State) -> tuple[str, ...]:
    """The examples by which the arms' own prompts are ranked."""
    return (*state.setup.validation, *state.scratch["playoff"]["examples"])


def _leader(state: State) -> int:
    """The arm whose own prompt does best in the playoff."""
    alive: list[int] = state.scratch["alive"]
    known = {arm: score for arm in alive if (score := own_score(state, arm, seen(state))) is not None}
    return max(sorted(known), key=lambda arm: known[arm], default=alive[0])


def play(state: State, answers: Sequence[Answer]) -> None:
    known = {answer.key: answer for answer in answers}
    own = _own_plan(state)
    kind = "scores" if own else "shared"
    for item in own or _common_plan(state):
        answer = known.get(item.key)
        if not isinstance(answer, Scored):
            continue
        if own and not item.reference:
            state.scores.setdefault(item.candidate, {})[item.example] = answer.score
        else:
            state.scratch["playoff"][kind].setdefault(str(item.arm), {})[item.example] = answer.score


def adopt(state: State, arm: int, given: arms.CombosParameters) -> None:
    """Takes the leader's prompt into the arm's search where the arm does better with it than with its own."""
    playoff, leader = state.scratch["playoff"], _leader(state)
    scores = playoff.get("shared", {}).get(str(arm), {})
    mine = state.scores.get(playoff["bests"][str(arm)], {})
    own, shared = _means(state, state.setup.validation, [mine, scores])
    if not _adopts(state, given) or arm == leader or own is None or shared is None or shared <= own:
        return
    inner, taken = arms.inner_of(state, arm, given), state.candidates[playoff["bests"][str(leader)]]
    if any(one.text == taken.text for one in inner.candidates.values()):
        return
    name = f"c{len(inner.candidates)}"
    why = f"{taken.id}, taken over from another combination"
    inner.candidates[name] = Candidate(id=name, text=taken.text, step=inner.step, kind="adopted", rationale=why)
    inner.scores[name] = {one: scores[one] for one in state.setup.validation}
    arms.keep(state, arm, inner)


def _adopts(state: State, given: arms.CombosParameters) -> bool:
    """Whether the arms' searches go on from whichever of their prompts stands best; own judges would not know it."""
    last = given.parameters.get("select") == "last"
    return given.strategy != "beam" and not last and not state.setup.own_judges


def score(state: State, arm: int, given: arms.CombosParameters) -> float | None:
    """With the leader's prompt where all have answered with that, and may have it; else with the arm's own too."""
    playoff = state.scratch["playoff"]
    own, answered = own_score(state, arm, seen(state)), playoff.get("shared", {})
    alive: list[int] = state.scratch["alive"]
    rows = [answered.get(str(one), {}) for one in alive]
    shared = _means(state, playoff.get("common", ()), rows)[alive.index(arm)]
    if own is None or shared is None:
        return own
    return shared if _adopts(state, given) else (own + shared) / 2


def _means(state: State, examples: Sequence[str], rows: Sequence[Mapping[str, float | None]]) -> list[float | None]:
    """Of each of `rows`, over the examples that have a score in all of them: a judge's failures are nobody's luck."""
    scored = [one for one in examples if all(row.get(one) is not None for row in rows)]
    return [pool.mean_of(state, row, scored) for row in rows]


def own_score(state: State, arm: int, examples: Sequence[str]) -> float | None:
    """The mean of the arm's best prompt on the examples, by the judge that all arms share."""
    playoff = state.scratch["playoff"]
    if not state.setup.own_judges:
        return pool.mean(state, playoff["bests"][str(arm)], examples)
    return pool.mean_of(state, playoff["scores"].get(str(arm), {}), examples)


def merits(state: State, given: arms.CombosParameters) -> dict[int, float]:
    """How the arms that are left stand by their common judge: by what there is of a playoff, else by the last one."""
    alive, playoff = state.scratch["alive"], state.scratch["playoff"]
    rows = [] if playoff is None else [set(playoff["scores"].get(str(arm), {})) for arm in alive]
    common = sorted(set.intersection(*rows)) if rows else []
    ranking = state.scratch.get("ranking", {})
    scores = {arm: own_score(state, arm, common) if common else ranking.get(str(arm)) for arm in alive}
    return {arm: arms.worth(state, arm, score, given) for arm, score in scores.items()}
