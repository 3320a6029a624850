"""Single rules of the strategies that the end of a whole search does not show."""

from typing import Any

import pytest

from llm_optimizer.strategies import playoff, pool
from llm_optimizer.strategies.arms import CombosParameters
from llm_optimizer.strategies.frontier import merge_pair
from llm_optimizer.strategies.interface import Candidate, Evaluate, Proposal, Propose, Proposed, Scored, Setup, State
from llm_optimizer.strategies.parameters import read
from llm_optimizer.strategies.registry import built_in

IDS = tuple(f"v{number}" for number in range(4))


def state_of(rows: dict[str, tuple[float, ...]], texts: dict[str, str] | None = None, **others: Any) -> State:
    candidates = {name: Candidate(id=name, text=(texts or {}).get(name, name)) for name in rows}
    scores: dict[str, dict[str, float | None]] = {name: dict(zip(IDS, row, strict=True)) for name, row in rows.items()}
    setup = Setup(prompt="c0", feedback=("f",), validation=IDS)
    return State(
        **{"strategy": "x", "phase": "x", "setup": setup, "candidates": candidates, "scores": scores, **others}
    )


def test_of_equals_the_shorter_wins() -> None:
    """Of prompts with the same mean the shortest text is the best, however late it came."""
    even = (1.0, 0.0, 1.0, 0.0)
    assert pool.best(state_of({"c0": even, "c1": even}, {"c0": "a long text", "c1": "short"})).candidate == "c1"


@pytest.mark.parametrize(
    ("other", "pair"),
    [((0.0, 0.0, 1.0, 1.0), ("c0", "c1")), ((0.0, 1.0, 1.0, 1.0), None), ((0.0, 1.0, 1.0, 0.0), None)],
)
def test_a_merge_needs_two_wins_of_each(other: tuple[float, ...], pair: tuple[str, str] | None) -> None:
    """Two prompts are worth a merge when each is better on at least two examples."""
    assert merge_pair(state_of({"c0": (1.0, 1.0, 0.0, 0.0), "c1": other})) == pair


def test_opro_shows_no_prompt_far_below_the_best() -> None:
    """A prompt under three tenths of the best mean is no example to follow; the others come worst first."""
    rows = {"c0": (0.25, 0.25, 0.25, 0.25), "c1": (1.0, 1.0, 1.0, 1.0), "c2": (0.5, 0.5, 0.5, 0.5)}
    (asked,) = built_in("opro").plan(state_of(rows, strategy="opro", phase="ask"))
    assert isinstance(asked, Propose)
    assert asked.history == (("c2", 0.5), ("c1", 1.0))


@pytest.mark.parametrize(("noise", "goes_on"), [(0.0, True), (0.2, False)])
def test_a_lead_within_the_judges_noise_is_none(noise: float, goes_on: bool) -> None:
    """On six examples and with a noise of 0.2 a child has to lead by more than 0.6 in sum, not by 0.48."""
    reflect = built_in("reflect")
    feedback = tuple(f"f{number}" for number in range(6))
    state = reflect.start(Setup(prompt="First.", feedback=feedback, validation=IDS, judge_noise=noise))
    while not (state.candidates.get("c1") and state.phase != "gate"):
        state = reflect.apply(state, [_answer(item) for item in reflect.plan(state)])
    assert (state.phase == "race") is goes_on
    assert (state.candidates["c1"].rejected is None) is goes_on


def _answer(item: object) -> Scored | Proposed:
    if isinstance(item, Propose):
        return Proposed(key=item.key, proposals=(Proposal(text="Second."),))
    assert isinstance(item, Evaluate)
    return Scored(key=item.key, score=0.5 if item.candidate == "c0" else 0.58)


def test_answers_without_a_score_are_nobodys_luck() -> None:
    """Arms are ranked by the leader's prompt on the examples on which all of them have a score."""
    even = (1.0, 0.0, 1.0, 0.0)
    state = state_of({"0.c0": even, "1.c0": even}, strategy="combos")
    lost: dict[str, float | None] = {"a": 1.0, "b": None, "c": 0.0}
    state.scratch["alive"] = [0, 1]
    state.scratch["playoff"] = {
        "bests": {"0": "0.c0", "1": "1.c0"},
        "examples": [],
        "scores": {},
        "common": list(lost),
        "shared": {"0": lost, "1": {"a": 1.0, "b": 0.0, "c": 0.0}},
    }
    given = read(CombosParameters, {})
    assert [playoff.score(state, arm, given) for arm in (0, 1)] == [0.5, 0.5]
