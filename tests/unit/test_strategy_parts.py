"""What the strategies are made of: texts that may be tried, minibatches, splits, fronts, meta prompts."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidField
from llm_optimizer.strategies import candidates, frontier, pool
from llm_optimizer.strategies.interface import Candidate, Proposal, ProposalKind, Propose, Setup, Shown, State
from llm_optimizer.strategies.meta_prompts import Example, check_template, read, request, shown_ids, tells
from llm_optimizer.strategies.minibatch import minibatch
from llm_optimizer.strategies.phases import opening
from llm_optimizer.strategies.splitting import split, validation_size
from llm_optimizer.strategies.state_codec import from_document, to_document

IDS = st.lists(st.integers(0, 10**6).map("x{}".format), unique=True, max_size=60)
EXAMPLES = {
    "x1": Example(input="The meeting of the board is on the third of July in Oslo.", expected='{"day": "2025-07-03"}'),
    "x2": Example(input="Nothing is planned. {{prompt}}", expected='{"day": null}'),
}


def state_of(prompt: str = "Give the day of {{event}} as JSON.", **others: Any) -> State:
    return opening("reflect", Setup(prompt=prompt, feedback=("x1",), validation=("x2",), **others), "baseline")


class TestCandidates:
    """What a text must be before anything is spent on it."""

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("  \n", "it is empty"),
            ("give the DAY of  {{event}}\nas json.", "it was tried before"),
            ("Give the day of the event.", "template variables"),
            ("Give {{day}} of {{event}}.", "template variables"),
            ("Give {{event}}. " + "x" * 5000, "more than 4000 characters"),
            ("Give {{event}} anew.", "locked part"),
        ],
    )
    def test_faults(self, text: str, told: str) -> None:
        """Empty, known, too long, with other variables or without a locked part: rejected, and the reason kept."""
        state = state_of(locked=("as JSON",))
        made = candidates.add(state, Proposal(text=text), (pool.SEED,), "edit")
        assert made.rejected is not None
        assert told in made.rejected

    def test_a_good_text(self) -> None:
        """A new text with the same variables and the locked part is taken, with its parent and its rationale."""
        state = state_of(locked=("as JSON",))
        made = candidates.add(state, Proposal(text="State {{ event }} as JSON.", rationale="why"), (pool.SEED,), "edit")
        assert made == Candidate(id="c1", text=made.text, parents=("c0",), kind="edit", rationale="why")

    def test_recited_examples(self) -> None:
        """Eight words of an example in a row are a recital, seven are not, and what the parent had is its own."""
        example = EXAMPLES["x1"].input
        assert candidates.copies("Note: the meeting of the board is on the, well.", "", [example])
        assert not candidates.copies("Note: the meeting of the board is on a day.", "", [example])
        assert not candidates.copies(f"Again: {example}", f"Say {example}", [example])


@given(ids=IDS, size=st.integers(1, 20), seed=st.integers(0, 99))
def test_minibatches_go_through_all_examples(ids: list[str], size: int, seed: int) -> None:
    """An epoch's batches hold every example once, but for what fills up the last one; none twice in a batch."""
    epoch = -(-len(ids) // min(size, len(ids))) if ids else 1
    batches = [minibatch(seed, ids, size, number) for number in range(epoch)]
    assert {one for batch in batches for one in batch} == set(ids)
    assert all(len(set(batch)) == len(batch) == min(size, len(ids)) for batch in batches)
    assert minibatch(seed, list(reversed(ids)), size, 3) == minibatch(seed, ids, size, 3)


class TestSplit:
    """Holdout, validation and feedback."""

    @given(ids=IDS, seed=st.integers(0, 99), rollouts=st.integers(1, 3000))
    def test_parts(self, ids: list[str], seed: int, rollouts: int) -> None:
        """From 20 examples on the parts are disjoint, make up all, and none is empty; below, nothing is held."""
        parts = split(dict.fromkeys(ids, ()), seed=seed, rollouts=rollouts)
        if len(ids) < 20:
            assert not parts.validated
            assert (parts.holdout, parts.feedback) == ((), parts.validation)
            assert set(parts.feedback) == set(ids)
        else:
            all_ = [*parts.holdout, *parts.validation, *parts.feedback]
            assert sorted(all_) == sorted(ids)
            assert min(map(len, (parts.holdout, parts.validation, parts.feedback))) > 0

    def test_shares(self) -> None:
        """300 examples hold back 30 %, each part with its share of every tag; a budget sets the size of validation."""
        tags = {f"x{number}": ["rare"] if number % 10 == 0 else ["usual"] for number in range(300)}
        parts = split(tags, seed=1, rollouts=600)
        assert (len(parts.holdout), len(parts.validation), len(parts.feedback)) == (90, 30, 180)
        for part, rare in ((parts.holdout, 9), (parts.validation, 3), (parts.feedback, 18)):
            assert abs(sum(tags[one] == ["rare"] for one in part) - rare) <= 1
        assert [validation_size(rollouts) for rollouts in (50, 200, 600, 9000)] == [8, 10, 30, 60]
        assert validation_size(1800, arms=9) == 16


class TestFrontier:
    """Parents that are best at something."""

    def state(self) -> State:
        """a is best at 1 and 2, b at 3 and 4, c nowhere alone."""
        state = state_of()
        state.setup = Setup(prompt="", feedback=(), validation=("1", "2", "3", "4", "5"))
        rows = {"a": (1, 1, 0, 0, 1), "b": (0, 0, 1, 1, 1), "c": (0, 0, 0, 0, 1)}
        state.candidates = {name: Candidate(id=name, text=name) for name in rows}
        state.scores = {name: dict(zip("12345", map(float, row), strict=True)) for name, row in rows.items()}
        return state

    def test_survivors(self) -> None:
        """A prompt that is nowhere better than all others is no parent; the two that are make a pair to merge, once."""
        state = self.state()
        assert set(frontier.survivors(state)) == {"a", "b"}
        assert {frontier.pareto_parent(state)} <= {"a", "b"}
        assert frontier.merge_pair(state) == ("a", "b")
        trial = frontier.merge_trial(state, "a", "b", margin=0)
        assert (sorted(trial["batch"]), trial["against"]) == (["1", "2", "3", "4", "5"], ["a", "b"])
        state.candidates["d"] = Candidate(id="d", text="d", parents=("a", "b"), rejected="gate")
        assert frontier.merge_pair(state) is None

    def test_unscored_examples_do_not_count(self) -> None:
        """An answer that could not be scored is neither a loss nor a win."""
        state = self.state()
        state.scores["a"]["1"] = None
        assert pool.mean(state, "a") == 0.5
        assert frontier.wins(state, "a", "b") == ["2"]
        assert pool.differences(state, "a", "b", "12345") == [1, -1, -1, 0]

    def test_weights_count(self) -> None:
        """Means and differences count an example by its weight."""
        state = self.state()
        state.setup = replace(state.setup, weights={"1": 3.0, "2": 0.5, "3": 0.5, "4": 0.5, "5": 0.5})
        assert pool.mean(state, "a") == pytest.approx(0.8)
        gaps = pool.differences(state, "a", "b", "12345")
        assert sum(gaps) / len(gaps) == pytest.approx((3.5 - 1) / 5)
        assert from_document(to_document(state)).setup == state.setup

    @pytest.mark.parametrize(
        ("gaps", "given_up"), [([], False), ([-1.0] * 3, True), ([-1, 1, -1, 0], False), ([-1, -1, -1, 0], True)]
    )
    def test_races(self, gaps: list[float], given_up: bool) -> None:
        """A race is lost when the paired mean is below zero by more than its standard error."""
        assert pool.hopeless(gaps) is given_up


class TestMetaPrompts:
    """What a meta-model is asked and what it answered."""

    def item(self, **others: Any) -> Propose:
        shown = (Shown(example="x1", output="3 July", score=0.0, feedback="day: expected 2025-07-03"),)
        return Propose(serial=1, kind=ProposalKind.EDIT, parent="c0", shown=shown, golds=("x2",), **others)

    def test_request(self) -> None:
        """Prompt, answers, feedback, golds and constraints are in it; what comes from outside is put in as it is."""
        text = request(state_of(max_chars=900), self.item(), EXAMPLES, task="find days")
        assert "```\nGive the day of {{event}} as JSON.\n```" in text
        for part in ("The task: find days", "3 July", "day: expected 2025-07-03", "At most 900 characters"):
            assert part in text
        assert "Nothing is planned. {{prompt}}" in text
        assert set(shown_ids(self.item())) == set(EXAMPLES)

    def test_a_trajectory_has_all_scores(self) -> None:
        """The best prompt's too, as whole numbers of a hundred, the others' from the worst on."""
        state = state_of(prompt="Say it.")
        for name in ("c1", "c2"):
            state.candidates[name] = Candidate(id=name, text=f"Say it as {name}.")
        history = (("c1", 0.101), ("c2", 0.3), ("c0", 0.457))
        item = Propose(serial=1, kind=ProposalKind.TRAJECTORY, parent="c0", score=0.457, history=history)
        text = request(state, item, {})
        assert "a score of 46 of 100:\n```\nSay it.\n```" in text
        assert text.index("Score 10:\n```\nSay it as c1.") < text.index("Score 30:\n```\nSay it as c2.")

    @pytest.mark.parametrize("kind", list(ProposalKind))
    def test_every_template_is_filled(self, kind: ProposalKind) -> None:
        """No placeholder is left over in any request, and each asks for the answer that is read."""
        state = state_of(prompt="Say it.")
        state.candidates["c1"] = Candidate(id="c1", text="Say it well.", rejected="race: -0.2")
        others: dict[str, Any] = {"second": "c1", "wins": (("x1",), ())} if kind is ProposalKind.MERGE else {}
        item = Propose(serial=1, kind=kind, parent="c0", count=2, history=(("c1", 0.5),), rejected=("c1",), **others)
        text = request(state, item, {"x1": Example(input="An input.")})
        assert "{{" not in text
        assert '"prompt' in text
        assert "Say it." in text

    def test_own_templates(self) -> None:
        """A user's template, in the old spelling too, must hold the prompt and the feedback and nothing unknown."""
        check_template("meta", "{prompt} is judged {feedback}")
        assert request(state_of(), self.item(), EXAMPLES, template="<{prompt}>").startswith("<Give the day")
        with pytest.raises(InvalidField, match=r"meta: must hold \{\{feedback\}\}"):
            check_template("meta", "{{prompt}} {{score}}")
        with pytest.raises(InvalidField, match="meta: unknown placeholders: answers"):
            check_template("meta", "{{prompt}} {{feedback}} {{answers}}")

    @pytest.mark.parametrize(
        ("answer", "texts"),
        [
            ('{"rationale": "r", "prompt": "New."}', ["New."]),
            ('Sure!\n```json\n{"rationale": "r", "prompt": "New."}\n```', ["New."]),
            ('{"rationale": "r", "prompts": ["One.", "", "Two.", "Three."]}', ["One.", "Two."]),
            ("I changed it:\n```\nOld.\n```\nto\n```text\nNew.\n```", ["New."]),
            ("New.", []),
            ('{"prompt": 7}', []),
        ],
    )
    def test_answers(self, answer: str, texts: list[str]) -> None:
        """JSON, JSON in words, several texts, the last code block; words alone are no prompt."""
        found = read(state_of(), self.item(count=2), EXAMPLES, answer)
        assert [one.text for one in found.proposals] == texts
        assert (found.problem is None) is bool(texts)

    def test_recital(self) -> None:
        """A text that recites an example that was shown is marked, and becomes no candidate."""
        answer = '{"prompt": "{{event}}: The meeting of the board is on the third of July."}'
        (proposal,) = read(state_of(), self.item(), EXAMPLES, answer).proposals
        assert proposal.fault == "it recites an example"
        assert candidates.add(state_of(), proposal, ("c0",), "edit").rejected == "fault: it recites an example"

    @pytest.mark.parametrize(
        ("feedback", "told"),
        [("got 3 July, expected 2025-07-03", True), ("not quite", False), ("", False)],
    )
    def test_whether_feedback_tells(self, feedback: str, told: bool) -> None:
        """Feedback tells when a value of the expected answer is in it."""
        assert tells(feedback, EXAMPLES["x1"].expected) is told
