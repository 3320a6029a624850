"""The search strategies, driven without jobs in a toy world of ten rules."""

import random
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidField, StorageCorrupt, UnknownReference
from llm_optimizer.strategies import beam_selection, combos
from llm_optimizer.strategies.interface import (
    Candidate,
    Compare,
    Evaluate,
    FinishReason,
    Propose,
    Proposed,
    Setup,
    State,
)
from llm_optimizer.strategies.registry import BUILT_IN, Strategies, built_in
from llm_optimizer.strategies.state_codec import from_document, to_document
from tests.support.searching import Toy, search, through_json

FEEDBACK = tuple(f"x{number}" for number in range(40))
VALIDATION = tuple(f"x{number}" for number in range(40, 65))
VARIANTS: list[tuple[str, dict[str, Any], int]] = [
    ("auto", {}, 1),
    ("auto", {}, 3),
    ("beam", {"width": 2, "gradients": 2}, 1),
    ("beam", {"width": 2, "selection": "bounds", "paraphrase": True, "gradients": 5}, 1),
    ("combos", {"strategy": "opro", "rung": 40}, 4),
    ("duel", {"mutateEvery": 3}, 1),
    ("opro", {"proposals": 2}, 1),
    ("refine", {"minibatch": 3}, 1),
    ("refine", {"select": "last"}, 1),
    ("reflect", {"parents": "pareto", "golds": "always"}, 1),
    ("reflect", {"parents": "mix", "minibatch": 2, "width": 3}, 1),
]


def setup_of(parameters: dict[str, Any] | None = None, **others: Any) -> Setup:
    given_ = {"feedback": FEEDBACK, "validation": VALIDATION, "golds": FEEDBACK[:10], "rollouts": 600, **others}
    return Setup(prompt="Answer well.", parameters=parameters or {}, **given_)


def by_id(state: State) -> dict[str, Any]:
    """The state's document; the order in which different arms made their candidates does not matter."""
    document = to_document(state)
    return {**document, "candidates": sorted(document["candidates"], key=lambda one: str(one["id"]))}


@pytest.mark.parametrize(("name", "parameters", "arms"), VARIANTS)
@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rollouts=st.integers(0, 400),
    at_once=st.integers(1, 30),
    unscored=st.sampled_from([0.0, 0.1, 0.5]),
    failing=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_a_search_ends_the_same_however_it_is_disturbed(
    name: str,
    parameters: dict[str, Any],
    arms: int,
    *,
    seed: int,
    rollouts: int,
    at_once: int,
    unscored: float,
    failing: float,
) -> None:
    """Stored and read after every step, answered in pieces and out of order, a search has the same end.

    It spends no more than its budget, asks for no example but those it was given, and uses no key for two things.
    """
    strategy, setup = built_in(name), setup_of(parameters, seed=seed, rollouts=rollouts, arms=arms)
    world = Toy(seed=seed, unscored=unscored, failing=failing, handicap=(0.0, 0.5, 0.2, 0.7))
    undisturbed = search(strategy, setup, world, rollouts=rollouts, at_once=at_once)
    disturbed = search(
        built_in(name),
        setup,
        world,
        rollouts=rollouts,
        at_once=at_once,
        between=through_json,
        shuffled=random.Random(seed),
    )
    assert to_document(disturbed.state) == to_document(undisturbed.state)
    assert undisturbed.spent <= rollouts
    asked = [item.example for item in undisturbed.items if isinstance(item, Evaluate | Compare)]
    assert set(asked) <= {*FEEDBACK, *VALIDATION}
    meanings = {(item.key, item) for item in undisturbed.items}
    assert len({key for key, _ in meanings}) == len(meanings)
    assert strategy.best(undisturbed.state).candidate in undisturbed.state.candidates


@pytest.mark.parametrize(
    ("name", "parameters", "arms"),
    [
        ("beam", {"rounds": 2}, 1),
        ("beam", {"rounds": 2, "selection": "bounds", "paraphrase": True}, 1),
        ("combos", {"strategy": "opro", "parameters": {"steps": 3}, "rung": 60}, 4),
        ("duel", {"rounds": 6, "mutateEvery": 2}, 1),
        ("opro", {"steps": 3}, 1),
        ("refine", {"maxIterations": 8}, 1),
        ("refine", {"select": "last", "maxIterations": 4}, 1),
        ("reflect", {"maxIterations": 25, "parents": "pareto"}, 1),
        ("reflect", {"maxIterations": 15, "width": 3}, 1),
    ],
)
def test_a_plan_may_be_answered_in_pieces(name: str, parameters: dict[str, Any], arms: int) -> None:
    """What a trimmed plan left out is asked for again: three items at a time come to the same end as all at once."""
    setup, world = setup_of(parameters, arms=arms), Toy(handicap=(0.0, 0.5, 0.2, 0.7))
    pieces, whole = (search(built_in(name), setup, world, rollouts=10_000, at_once=some) for some in (3, 10_000))
    assert pieces.state.finish is not None
    assert by_id(pieces.state) == by_id(whole.state)
    assert pieces.spent == whole.spent


@pytest.mark.parametrize("name", ["auto", "beam", "opro", "reflect"])
def test_a_search_finds_a_better_prompt(name: str) -> None:
    """With 600 rollouts the winner solves several times as many validation examples as the first prompt."""
    setup = setup_of()
    driven = search(built_in(name), setup, Toy(), rollouts=600)
    best = built_in(name).best(driven.state)
    assert best.mean is not None
    assert best.mean >= 0.3
    assert driven.state.candidates[best.candidate].parents


def test_last_has_the_last_suggestion_and_best_the_best() -> None:
    """`last` validates nothing and answers with its last text; `best` keeps what did better in validation."""
    last = search(built_in("refine"), setup_of({"select": "last", "maxIterations": 3}), Toy(), rollouts=10_000)
    assert last.state.finish is FinishReason.ITERATIONS
    assert built_in("refine").best(last.state).candidate == list(last.state.candidates)[-1]
    assert {item.example for item in last.items if isinstance(item, Evaluate)} <= set(FEEDBACK)
    best = search(built_in("refine"), setup_of({"patience": 0}), Toy(), rollouts=10_000)
    means = [sum(best.state.scores[one].get(x) or 0 for x in VALIDATION) / 25 for one in best.state.candidates]
    assert built_in("refine").best(best.state).mean == max(means)


class TestEnds:
    """Why a search ends."""

    def test_most_rollouts_unscored(self) -> None:
        """More than a fifth without a score is an error, not a bad prompt."""
        driven = search(built_in("reflect"), setup_of(), Toy(unscored=0.5), rollouts=600)
        assert driven.state.finish is FinishReason.ERROR

    def test_target(self) -> None:
        """It stops at the first validated prompt that is good enough."""
        driven = search(built_in("reflect"), setup_of(target=0.25), Toy(), rollouts=10_000)
        assert driven.state.finish is FinishReason.TARGET
        assert 0.25 <= (built_in("reflect").best(driven.state).mean or 0) < 0.5

    def test_nothing_to_learn(self) -> None:
        """Five minibatches without a fault end it, without one meta call."""
        setup = replace(setup_of(), prompt=" ".join(f"rule-{number}" for number in range(10)))
        driven = search(built_in("reflect"), setup, Toy(), rollouts=10_000)
        assert driven.state.finish is FinishReason.PERFECT
        assert not [item for item in driven.items if isinstance(item, Propose)]

    @pytest.mark.parametrize("name", ["beam", "duel", "opro", "refine", "reflect"])
    def test_a_meta_model_that_is_down(self, name: str) -> None:
        """Ten proposals in a row that give nothing end the search instead of asking for ever."""
        driven = search(
            built_in(name), setup_of({} if name != "refine" else {"patience": 0}), Toy(failing=1.0), rollouts=10_000
        )
        assert driven.state.finish in {FinishReason.ERROR, FinishReason.NO_IMPROVEMENT}

    def test_patience(self) -> None:
        """Iterations that find nothing better are counted, over a resume as well."""
        setup = setup_of({"patience": 2}, feedback=FEEDBACK[:1])
        driven = search(built_in("refine"), setup, Toy(), rollouts=10_000, between=through_json)
        assert driven.state.finish in {FinishReason.NO_IMPROVEMENT, FinishReason.PERFECT}


class TestReflect:
    """What is particular to reflect."""

    def test_a_bad_text_is_given_up_early(self) -> None:
        """A text that is behind the best by more than chance is not validated to the end."""
        driven = search(built_in("reflect"), setup_of({"parents": "pareto"}), Toy(handicap=(0.6,)), rollouts=3000)
        raced = [one for one in driven.state.candidates.values() if (one.rejected or "").startswith("race")]
        assert raced
        assert all(len(set(driven.state.scores[one.id]) & set(VALIDATION)) < len(VALIDATION) for one in raced)

    def test_golds_are_shown_where_the_feedback_tells_nothing(self) -> None:
        """Expected answers go to the meta-model when the feedback has none of them, and stay away where it has."""
        driven = search(built_in("reflect"), setup_of(), Toy(), rollouts=200)
        assert any(item.golds for item in driven.items if isinstance(item, Propose))
        never = search(built_in("reflect"), setup_of({"golds": "never"}), Toy(), rollouts=200)
        assert not any(item.golds for item in never.items if isinstance(item, Propose))

    def test_a_parent_may_have_several_children_at_a_time(self) -> None:
        """They are tried on the same minibatch, and at most one of them is validated."""
        driven = search(built_in("reflect"), setup_of({"width": 3, "merge": False}), Toy(), rollouts=600)
        by_step: dict[int, list[Candidate]] = {}
        for one in list(driven.state.candidates.values())[1:]:
            by_step.setdefault(one.step, []).append(one)
        assert max(map(len, by_step.values())) == 3
        for children in by_step.values():
            assert sum(bool(set(driven.state.scores.get(one.id, {})) & set(VALIDATION)) for one in children) <= 1


class TestBeam:
    """What beam may be told."""

    def test_bounds_spend_where_it_matters(self) -> None:
        """By upper confidence bounds good prompts are tried on more examples than bad ones, in whole pulls."""
        setup = setup_of({"selection": "bounds", "exploration": 0.02, "rounds": 3})
        driven = search(built_in("beam"), setup, Toy(), rollouts=10_000)
        state = driven.state
        pulls = {one: beam_selection.pulled(state, one) for one in state.candidates if state.scores.get(one)}
        tried = {one: count for one, count in pulls.items() if count}
        most, least = max(tried.values()), min(tried.values())
        assert least < beam_selection.PULLS_EACH < most
        assert all(count % beam_selection.PULL == 0 or count == len(VALIDATION) for count in tried.values())
        assert (built_in("beam").best(state).mean or 0) >= 0.2

    def test_paraphrases_are_children_of_edits(self) -> None:
        """Each edit has another wording, made without feedback; no prompt of the beam has more than eight children."""
        driven = search(
            built_in("beam"), setup_of({"paraphrase": True, "gradients": 6, "rounds": 2}), Toy(), rollouts=10_000
        )
        kinds = {one.id: one.kind for one in driven.state.candidates.values()}
        made = [one for one in driven.state.candidates.values() if one.kind == "paraphrase"]
        assert made
        assert all(kinds[one.parents[0]] == "edit" for one in made)
        asked = [item for item in driven.items if isinstance(item, Propose) and item.kind == "paraphrase"]
        assert not any(item.shown for item in asked)
        tried = [one for one in driven.state.candidates.values() if one.step == 1 and driven.state.scores.get(one.id)]
        assert len(tried) <= 8


class OneRule(Toy):
    """Arm 1 finds one rule and no other."""

    def _proposed(self, state: State, item: Propose) -> Proposed:
        made = super()._proposed(state, item)
        if item.arm != 1 or "rule-" not in state.candidates[item.parent].text:
            return made
        return replace(made, proposals=tuple(replace(one, text=f"{one.rationale} please") for one in made.proposals))


class TestCombos:
    """Successive halving over combinations of models."""

    def test_the_best_arm_is_left(self) -> None:
        """The arm that loses fewest answers survives; two get the first rung alone, and nothing is done twice."""
        setup = setup_of({"rung": 60}, arms=4, rollouts=1200)
        driven = search(built_in("combos"), setup, Toy(handicap=(0.6, 0.0, 0.5, 0.7)), rollouts=1200)
        assert driven.state.scratch["alive"] == [1]
        assert built_in("combos").best(driven.state).arm == 1
        spent = driven.state.scratch["spent"]
        assert spent["1"] > max(spent[arm] for arm in "023")
        assert sorted(spent[arm] for arm in "023")[:2] == [60, 60]
        asked = [item.key for item in driven.items if isinstance(item, Propose)]
        assert len(asked) == len(set(asked))

    def test_models_are_told_apart_by_one_prompt(self) -> None:
        """An arm whose search had no luck survives for what it makes of the leader's prompt, and goes on from that: a
        model is worth what it does with the same prompt. In pieces and through JSON it ends the same."""
        setup = setup_of({"rung": 60}, arms=4, rollouts=1200)
        world = OneRule(handicap=(0.6, 0.0, 0.6, 0.6))
        driven = search(built_in("combos"), setup, world, rollouts=1200)
        best = built_in("combos").best(driven.state)
        rules = set(driven.state.candidates[best.candidate].text.split()) & {f"rule-{place}" for place in range(10)}
        assert (best.arm, len(rules) > 1) == (1, True)
        assert [one.id.partition(".")[0] for one in driven.state.candidates.values() if one.kind == "adopted"] == ["1"]
        pieces = search(built_in("combos"), setup, world, rollouts=1200, at_once=7, between=through_json)
        assert by_id(pieces.state)["candidates"] == by_id(driven.state)["candidates"]

    def test_own_judges_do_not_rank(self) -> None:
        """Arms search by their own judges, whose scores decide nothing between arms: who is liked by a lenient one
        drops out. A playoff is on the same examples for all; in pieces and through JSON it says the same."""
        setup = setup_of({"rung": 60}, arms=4, rollouts=1200, own_judges=True)
        world = Toy(handicap=(0.6, 0.0, 0.5, 0.7), lenient=frozenset({0, 3}))
        driven = search(built_in("combos"), setup, world, rollouts=1500)
        assert 1 in driven.state.scratch["alive"]
        assert built_in("combos").best(driven.state).arm == 1
        ranked = [item for item in driven.items if isinstance(item, Evaluate) and item.reference]
        by_arm = {arm: [item.example for item in ranked if item.arm == arm] for arm in (0, 3)}
        first = len(VALIDATION) + 15
        assert by_arm[0][:first] == by_arm[3][:first]
        assert set(VALIDATION) < set(by_arm[3])
        assert not set(by_arm[0]) - {*VALIDATION, *FEEDBACK}
        pieces = search(built_in("combos"), setup, world, rollouts=1500, at_once=7, between=through_json)
        assert by_id(pieces.state)["scratch"]["ranking"] == by_id(driven.state)["scratch"]["ranking"]
        scores = {each.arm: each.score for each in combos.standings(driven.state)}
        assert (scores[1] or 0) > max(scores[0] or 0, scores[3] or 0)

    def test_a_budget_that_ends_in_between_is_fair(self) -> None:
        """Before any playoff has ended nobody is best by the scores of a judge of its own."""
        setup = setup_of({"rung": 100}, arms=3, rollouts=600, own_judges=True)
        world = Toy(handicap=(0.9, 0.0, 0.9), lenient=frozenset({2}))
        best = [
            built_in("combos").best(search(built_in("combos"), setup, world, rollouts=spent).state).arm
            for spent in (100, 320, 360)
        ]
        assert best[0] == 0
        assert best[1:] == [1, 1]

    def test_cost_can_count(self) -> None:
        """With a weight on cost the same score at a price is worth less."""
        setup = setup_of({"rung": 60, "costWeight": 1.0}, arms=2, rollouts=600)
        driven = search(built_in("combos"), setup, Toy(handicap=(0.0, 0.0)), rollouts=600)
        assert len(driven.state.scratch["alive"]) == 1


class TestAuto:
    """The default."""

    @pytest.mark.parametrize(
        ("others", "chosen"),
        [
            ({"rollouts": 149}, "refine"),
            ({"rollouts": 150}, "reflect"),
            ({"pairwise_only": True}, "duel"),
            ({"rollouts": 1000, "arms": 9}, "combos"),
        ],
    )
    def test_choice(self, others: dict[str, Any], chosen: str) -> None:
        """Small budgets refine, mere taste duels, several combinations of models are halved, all else reflects."""
        assert built_in("auto").start(setup_of(**others)).strategy == chosen


class TestParameters:
    """What a strategy may be told."""

    @pytest.mark.parametrize(
        ("name", "parameters", "told"),
        [
            ("reflect", {"minibatch": 0}, r"strategy\.parameters\.minibatch: must be a whole number from 1 to 50"),
            ("reflect", {"minibatch": True}, r"strategy\.parameters\.minibatch"),
            ("reflect", {"parents": "any"}, r"strategy\.parameters\.parents: must be one of best, pareto, mix"),
            ("reflect", {"merge": 1}, r"strategy\.parameters\.merge: must be true or false"),
            ("refine", {"depth": 3}, r"strategy\.parameters\.depth: unknown; there are maxIterations, minibatch"),
            ("opro", {"threshold": float("nan")}, r"strategy\.parameters\.threshold: must be a number from 0 to 1"),
            ("auto", {"minibatch": 3}, r"strategy\.parameters\.minibatch: unknown; there are none"),
            ("combos", {"parameters": 3}, r"strategy\.parameters\.parameters: must be an object"),
            ("combos", {"parameters": {"depth": 3}}, r"strategy\.parameters\.depth: unknown"),
        ],
    )
    def test_refused(self, name: str, parameters: dict[str, Any], told: str) -> None:
        """A wrong parameter is refused before anything begins, by its name and with what is allowed."""
        with pytest.raises(InvalidField, match=told):
            built_in(name).start(setup_of(parameters))


class TestRegistry:
    """Names and plug-ins."""

    def test_built_in(self) -> None:
        """Every name stands for a strategy that can start; another one is refused."""
        assert set(BUILT_IN) == {"auto", "beam", "combos", "duel", "opro", "refine", "reflect"}
        assert all(Strategies(list).get(name).start(setup_of()).phase for name in BUILT_IN)
        with pytest.raises(UnknownReference, match="strategy not found: annealing"):
            Strategies(list).get("annealing")

    def test_plug_ins(self) -> None:
        """An entry point adds a strategy; one that takes a name, is none or breaks is told and hurts nobody."""
        entries = [
            EntryPoint("mine", "llm_optimizer.strategies.opro:Opro", "metasync.strategies"),
            EntryPoint("auto", "llm_optimizer.strategies.opro:Opro", "metasync.strategies"),
            EntryPoint("none", "llm_optimizer.strategies.interface:Setup", "metasync.strategies"),
            EntryPoint("broken", "llm_optimizer.no_such_module:X", "metasync.strategies"),
        ]
        strategies = Strategies(lambda: entries)
        assert strategies.get("mine").start(setup_of()).strategy == "opro"
        assert strategies.names() == {*BUILT_IN, "mine"}
        assert set(strategies.problems()) == {"auto", "none", "broken"}


def test_a_state_that_cannot_be_read_says_so() -> None:
    """A document that no search has written is corrupt storage, not a search without candidates."""
    state: State = built_in("reflect").start(setup_of())
    for name in to_document(state):
        with pytest.raises(StorageCorrupt):
            from_document({key: value for key, value in to_document(state).items() if key != name})
