"""The simulated tasks and models that optimization is shown and compared on, without a key."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx
import pytest

from demo.conventions import DISTRACTORS, STEM
from demo.landscape import LANDSCAPES, as_text, world
from demo.meta_model import edited, prompts_in
from demo.simulated import Unanswerable, completion
from llm_optimizer.strategies.interface import ProposalKind, Propose, Setup, Shown
from llm_optimizer.strategies.meta_prompts import Example, read, request
from llm_optimizer.strategies.phases import opening

ROOT = Path(__file__).resolve().parents[2]
NOTES = range(200)


def ask(role: str, *messages: tuple[str, str], of: str = "fields:0", **others: Any) -> str:
    """The simulated model's text."""
    rows = [{"role": who, "content": text} for who, text in messages]
    answer = completion({"model": f"sim:{of}:{role}", "messages": rows, **others})
    text: str = answer["choices"][0]["message"]["content"]
    return text


@pytest.mark.parametrize("name", LANDSCAPES)
class TestLandscapes:
    """What a prompt is worth."""

    def test_rules_help_and_distractors_harm(self, name: str) -> None:
        """All rules beat none by far; a distractor costs, a smaller model does worse."""
        of = world(name, 1)
        best = of.worth(of.best_prompt, NOTES)
        assert best - of.worth(STEM, NOTES) > 0.5
        assert (of.first_prompt == of.best_prompt) is LANDSCAPES[name].starts_at_optimum
        assert best - of.worth(f"{of.best_prompt}\n{DISTRACTORS[0]}", NOTES) > 0.05
        assert best - of.worth(of.best_prompt, NOTES, tier="small") > 0.1

    def test_answers_are_worth_what_is_said(self, name: str) -> None:
        """Real answers score as expected on the mean, and an answer is the same when it is asked for again."""
        of = world(name, 2)
        answers = [of.answer(of.best_prompt, number) for number in range(1500)]
        scores = [of.score(number, answer) for number, answer in enumerate(answers)]
        assert fmean(scores) == pytest.approx(of.worth(of.best_prompt, range(1500)), abs=0.04)
        assert answers[7] == type(of)(name, 2).answer(of.best_prompt, 7)


def test_rules_interact() -> None:
    """In `chain` most rules do nothing without another one: the last of them alone is worth nothing."""
    of = world("chain", 0)
    needing = [rule for rule in of.rules.values() if rule.needs is not None]
    assert len(needing) == 6
    alone = f"{STEM}\n{needing[0].convention.sentences[0]}"
    assert of.worth(alone, NOTES) == of.worth(STEM, NOTES)


class TestModels:
    """The three parts over the wire format."""

    def test_work(self) -> None:
        """The working model goes by the system message, and by worked examples where there are any."""
        of = world("fields", 0)
        told = ask("work", ("system", of.best_prompt), ("user", of.note(3)))
        assert json.loads(told) == of.answer(of.best_prompt, 3)
        pairs = [
            pair for one in range(4, 9) for pair in (("user", of.note(one)), ("assistant", as_text(of.wanted(one))))
        ]
        shown = ask("work", ("system", STEM), *pairs, ("user", of.note(3)))
        assert json.loads(shown) == of.answer(STEM, 3, shown=(4, 5, 6, 7, 8))

    def test_judge(self) -> None:
        """The judge finds the answer beside the expected one, scores it with noise, and of two names the better one."""
        of = world("judged", 0)
        right, wrong = as_text(of.wanted(3)), as_text(of.answer(STEM, 3))
        scores = {
            text: json.loads(ask("judge", ("user", f"{of.note(3)}\nWanted: {right}\nAnswer: {text}"), of="judged:0"))
            for text in (right, wrong)
        }
        assert scores[right]["score"] > scores[wrong]["score"]
        assert scores[right]["feedback"] == "All as wanted."
        assert "expected" in scores[wrong]["feedback"]
        duel = ask("judge", ("user", f'{of.note(3)} A: {wrong} B: {right} Say {{"winner": …}}'), of="judged:0")
        assert json.loads(duel)["winner"] == "B"

    def test_meta_learns_from_our_requests(self) -> None:
        """Over many requests with rich feedback, edits hold rules of what was wrong; our reader takes every one."""
        of = world("fields", 0)
        state = opening("reflect", Setup(prompt=STEM, feedback=(), validation=()), "baseline")
        gained = []
        for number in range(40):
            answer = of.answer(STEM, number)
            shown = Shown(example="x", output=as_text(answer), score=0.3, feedback=of.feedback(number, answer))
            item = Propose(serial=number, kind=ProposalKind.EDIT, parent="c0", shown=(shown,))
            examples = {"x": Example(input=of.note(number), expected=as_text(of.wanted(number)))}
            answered = ask("meta", ("system", request(state, item, examples)), ("user", "{}"))
            (proposal,) = read(state, item, examples, answered).proposals
            gained.append(len(of.rules_in(proposal.text)))
        assert 0.8 < fmean(gained) < 2

    def test_meta_speaks_other_formats(self) -> None:
        """A request for a fenced block gets one, one for marked fields gets these, one for several texts as many."""
        assert prompts_in(ask("meta", ("user", f"Instructions:\n```\n{STEM}\n```\nAnswer within ``` blocks.")))
        fields = "Your output fields are:\n1. `proposed_instruction` (str):\nAll interactions will be"
        marked = ask(
            "meta", ("system", fields), ("user", f"[[ ## basic_instruction ## ]]\n{STEM}\nBe good.\n[[ ## tip ## ]]")
        )
        assert marked.startswith(f"[[ ## proposed_instruction ## ]]\n{STEM}")
        several = json.loads(ask("meta", ("user", f'```\n{STEM}\n```\n{{"prompts": []}} with 4 texts')))
        assert len(set(several["prompts"])) > 1

    def test_the_same_request_gets_the_same_answer(self) -> None:
        """Asking again changes nothing; another `seed` in the request may."""
        text = f"```\n{STEM}\n```"
        of = world("fields", 0)
        assert edited(of, text, seed=1) == edited(type(of)("fields", 0), text, seed=1)
        assert len({edited(of, text, seed=seed) for seed in range(10)}) > 1

    @pytest.mark.parametrize("model", ["gpt", "sim:none:0:work", "sim:fields:0:cook", "sim:fields:0:work:huge"])
    def test_unknown_models(self, model: str) -> None:
        """Another name is refused with what a name has to be."""
        with pytest.raises(Unanswerable, match="model"):
            completion({"model": model, "messages": []})


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """A provider's URL, in a process of its own."""
    command = [sys.executable, "-m", "demo.simulated"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0


def test_it_speaks_http(provider: str) -> None:
    """A real process answers what an in-process call answers, and refuses what is no chat completion with 400."""
    body = {"model": "sim:exact:4:work", "messages": [{"role": "user", "content": world("exact", 4).note(1)}]}
    with httpx.Client(base_url=provider, timeout=10) as client:
        assert client.post("/chat/completions", json=body).json() == completion(body)
        refused = client.post("/chat/completions", json={"model": "sim:exact:4:work", "messages": ["no"]})
    assert refused.status_code == 400
    assert "message" in refused.json()["error"]
