"""Searches by strategies of their own kind: a duel, which needs no labels, and a plug-in that is installed beside."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.jobs.job import Job
from engine.jobs.outcome import Completed, Outcome
from tests.http.test_run_subjects import begun, driven, jobs_of, uploaded
from tests.support.api import Api
from tests.support.jobs_http import Shop, open_shop
from tests.support.optimizing import Bench
from tests.support.toy_world import WORDS, Toy, example

PLUG_IN = '''
from dataclasses import replace

from llm_optimizer.strategies.interface import Best, Candidate, Evaluate, FinishReason, State


class AllWords:
    """Tries one text: the first one and all words."""

    def start(self, setup):
        texts = {"c0": setup.prompt, "c1": setup.prompt + " alpha beta gamma delta"}
        candidates = {name: Candidate(id=name, text=text) for name, text in texts.items()}
        return State(strategy="all-words", setup=setup, phase="try", candidates=candidates)

    def plan(self, state):
        known = state.scores.get("c1", {})
        return tuple(Evaluate(candidate="c1", example=one) for one in state.setup.validation if one not in known)

    def apply(self, state, answers):
        scores = {answer.key.split("/")[3]: answer.score for answer in answers}
        known = {**state.scores.get("c1", {}), **scores}
        finish = FinishReason.ITERATIONS if len(known) == len(state.setup.validation) else None
        return replace(state, scores={"c1": known}, finish=finish)

    def done(self, state):
        return state.finish

    def best(self, state):
        return Best(candidate="c1" if state.finish else "c0", mean=None)
'''


@pytest.fixture
def shop(api: Api) -> Shop:
    """A client with a prompt and a model."""
    return open_shop(api)


def unlabelled(shop: Shop) -> str:
    """The id of a dataset of which nobody says what is wanted."""
    items = [{"id": one.id, "input": one.input} for one in map(example, range(60))]
    return str(shop.call("POST", "/datasets", {"name": "unlabelled", "items": items}).json()["datasetId"])


def by_taste(job: Job) -> Outcome:
    """Right answers are liked better than wrong ones; each mutation has a word more."""
    role, told = (job.client_reference or {})["role"], job.instructions or ""
    if role == "work":
        return Toy().play(job)
    said: dict[str, Any] = {"reason": "taste"}
    if role == "meta":
        text = told.split("```")[1].strip()
        said["prompts"] = [f"{text} {word}" for word in WORDS if word not in text][:3]
    else:
        first, second = (job.request_data[side] == "right" for side in "AB")
        said["winner"] = "tie" if first == second else "A" if first else "B"
    return Completed(result={"text": orjson.dumps(said).decode()})


def test_a_duel_needs_no_labels(shop: Shop) -> None:
    """A judge that compares is all there is: no answer is scored, the winner is proven by how often its answers are
    liked better than the first prompt's on inputs that the search never saw, and it is published."""
    metric = {"kind": "pairwise_judge", "parameters": {"model": shop.model, "rubric": "The right one is better."}}
    evaluator = shop.call("POST", "/evaluators", {"name": "taste", "metrics": [metric]}).json()["evaluatorId"]
    strategy = {"name": "duel", "parameters": {"rounds": 9, "inputs": 8, "mutateEvery": 3}}
    fields = {"dataset": unlabelled(shop), "evaluator": evaluator, "strategy": strategy, "budget": {"calls": 900}}
    run_id = begun(shop, **fields).json()["runId"]
    Bench(shop.api.storage, shop.api.storage, client_id=shop.client_id).stepped(run_id, play=by_taste, most=6000)
    run = shop.call("GET", f"/runs/{run_id}").json()
    search = run["search"]
    assert (run["status"], search["verdict"], search["baseline"]) == ("COMPLETED", "promoted", None)
    assert sum(word in search["bestPrompt"] for word in WORDS) >= 2
    test = search["numbers"]["test"]
    assert (test["count"], test["losses"]) == (30, 0)
    assert test["wins"] >= 10
    jobs = jobs_of(shop, run, limit=5000)
    assert sum(job["clientReference"]["role"] == "eval" for job in jobs) % 2 == 0
    items = shop.call("GET", f"/runs/{run_id}/report").json()["items"]
    assert {(item["before"], item["after"]) for item in items} <= {(0.0, 1.0), (0.5, 0.5)}


def test_a_plug_in_is_asked_for_by_its_name(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with an entry point of the group is enough: a run may name it, and its winner is proven."""
    (tmp_path / "all_words_strategy.py").write_text(PLUG_IN)
    metadata = tmp_path / "all_words_strategy-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: all-words-strategy\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[metasync.strategies]\nall-words = all_words_strategy:AllWords\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    answer = begun(shop, dataset=uploaded(shop), strategy={"name": "all-words"}, budget={"calls": 300})
    run = driven(shop, answer.json()["runId"], Toy(judged=True))
    assert (run["status"], run["search"]["verdict"]) == ("COMPLETED", "promoted")
    assert run["search"]["finishReason"] == "iterations"
    assert run["search"]["bestPrompt"].endswith("alpha beta gamma delta")
    assert set(run["spent"]) == {"work", "eval"}


BREAKS = {
    "start": ("start", "return {}", "dict is not a State"),
    "raises": ("plan", "raise OSError('no such wing')", "failed in plan: OSError: no such wing"),
    "exits": ("plan", "raise SystemExit(3)", "failed in plan: SystemExit: 3"),
    "nonsense": ("plan", "return ['c1']", "'c1' is not an item"),
    "stranger": ("plan", "return [Evaluate(candidate='c9', example='x')]", "there is no candidate 'c9'"),
    "stuck": ("apply", "return state", "it would ask the same for ever"),
    "mute": ("done", "return 'enough'", "'enough' is not a FinishReason"),
    "lost": ("best", "return Best(candidate='c9', mean=1.0)", "there is no candidate 'c9'"),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_plug_in_that_breaks_ends_its_run(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Whatever a plug-in raises or returns, its run is refused or fails with the reason; it is not tried for ever."""
    method, body, told = BREAKS[case]
    module = f"broken_{case}_strategy"
    own = f"\nclass Broken(AllWords):\n    def {method}(self, *given):\n        state = given[0]\n        {body}\n"
    (tmp_path / f"{module}.py").write_text(PLUG_IN + own)
    metadata = tmp_path / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[metasync.strategies]\nbroken = {module}:Broken\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    answer = begun(shop, dataset=uploaded(shop), strategy={"name": "broken"}, budget={"calls": 300})
    if method == "start":
        assert answer.status_code == 400
        assert told in answer.text
        return
    run = driven(shop, answer.json()["runId"], Toy(judged=True))
    assert run["status"] == "FAILED"
    assert told in str(run)
    assert run["search"]["finishReason"] == "error"
