"""Searches over HTTP: what may be asked for, the report as JSON and as a page, and promotion."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from api.services.run_differences import difference
from api.services.run_page import verdict_of
from engine.jobs.job import Job
from engine.jobs.outcome import Completed
from tests.http.test_runs import body
from tests.support.api import running_api
from tests.support.backends import SQLITE, Servers, fresh_database
from tests.support.jobs_http import Shop, open_shop
from tests.support.optimizing import Bench
from tests.support.toy_world import Toy

EVIL = "<script>alert('x')</script> & \"quoted\""


@pytest.fixture
def toy() -> Toy:
    return Toy(examples=60, prompt=f"Answer. {EVIL}")


@pytest.fixture
def shop(toy: Toy, tmp_path: Path, storage_servers: Servers) -> Iterator[Shop]:
    """A client of a service whose only dataset is a toy."""
    fresh = fresh_database(SQLITE, storage_servers, tmp_path)
    with fresh as database, running_api(database.open(), subjects=toy) as api:
        yield open_shop(api)


def asked(shop: Shop, **fields: Any) -> dict[str, Any]:
    return body(shop, **{"dataset": "d", "budget": {"calls": 400}, "promote": "ask", **fields})


def ended(shop: Shop, toy: Toy, **fields: Any) -> str:
    """The id of a run that has come to its end."""
    answer = shop.call("POST", "/runs", asked(shop, **fields))
    assert answer.status_code == 201, answer.text
    run_id = str(answer.json()["runId"])
    bench = Bench(shop.api.storage, shop.api.storage, toy, client_id=shop.client_id)
    bench.stepped(run_id, play=toy.play, most=4000)
    return run_id


def test_a_search_is_answered_as_it_was_asked_for(shop: Shop, toy: Toy) -> None:
    """The optional fields come back, with how far the search is; a plain run has them null."""
    run_id = ended(
        shop, toy, seed=7, strategy={"name": "refine", "parameters": {"minibatch": 4}}, split={"holdout": 0.5}
    )
    run = shop.call("GET", f"/runs/{run_id}").json()
    assert (run["dataset"], run["seed"], run["strategy"]["name"], run["maxParallel"]) == ("d", 7, "refine", 16)
    assert run["budget"] == {"calls": 400, "tokens": None, "amount": None, "seconds": None}
    assert (run["status"], run["search"]["phase"], run["search"]["verdict"]) == ("COMPLETED", "ended", "proven")
    assert run["search"]["numbers"]["examples"]["holdout"] == 30
    plain = shop.call("POST", "/runs", body(shop)).json()
    assert (plain["dataset"], plain["search"]) == (None, None)


@pytest.mark.parametrize(
    ("fields", "status", "named"),
    [
        ({"dataset": None}, 422, "budget, promote"),
        ({"strategy": {"name": "nope"}}, 400, "strategy"),
        ({"strategy": {"name": "reflect", "parameters": {"nope": 1}}}, 400, "strategy.parameters.nope"),
        ({"budget": {"calls": 0}}, 422, "calls"),
        ({"modelCombinations": [{"workingModel": "nowhere", "metaModel": "gpt-test"}]}, 400, "model"),
        ({"maxParallel": 0}, 422, "maxParallel"),
        ({"target": 2}, 422, "target"),
        ({"evalutor": "e"}, 422, "evalutor is not a field of a run; is evaluator meant?"),
        ({"budget": {"calls": 5, "monney": 4}}, 422, "monney"),
        ({"strategy": {"name": "beam", "widht": 4}}, 422, "widht"),
    ],
)
def test_what_cannot_be_is_named(shop: Shop, fields: dict[str, Any], status: int, named: str) -> None:
    """An error that names the field, and nothing stored."""
    wanted = {name: value for name, value in {**asked(shop), **fields}.items() if value is not None}
    answer = shop.call("POST", "/runs", wanted)
    assert (answer.status_code, named in answer.text) == (status, True), answer.text
    assert shop.call("GET", "/runs").json() == []


def test_a_strategy_may_be_named_alone(shop: Shop, toy: Toy) -> None:
    """As a text; fields that are like none of a run's are ignored, as existing clients are used to."""
    answer = shop.call("POST", "/runs", asked(shop, strategy="beam", colour="blue"))
    assert (answer.status_code, answer.json()["strategy"]) == (201, {"name": "beam", "parameters": {}})


def test_the_report_tells_what_was_found(shop: Shop, toy: Toy) -> None:
    """Scores over spend, the candidates with their parents, the items, the cost by role, the test and why it ended."""
    report = shop.call("GET", f"/runs/{ended(shop, toy)}/report").json()
    assert (report["kind"], report["verdict"]) == ("search", "proven")
    assert report["points"][0]["calls"] < report["points"][-1]["calls"]
    names = {one["id"] for one in report["candidates"]}
    assert {parent for one in report["candidates"] for parent in one["parents"]} <= names
    assert report["total"]["calls"] == sum(one["calls"] for one in report["spent"].values())
    test = report["numbers"]["test"]
    assert sum(one["after"] > one["before"] for one in report["items"]) == test["wins"]
    assert EVIL in report["winner"]


def test_the_report_tells_how_the_best_prompt_came_about(shop: Shop, toy: Toy) -> None:
    """Version by version from the first prompt to the best one, each beside its parent; and what it is worth unseen."""
    run_id = ended(shop, toy)
    report = shop.call("GET", f"/runs/{run_id}/report").json()
    known = {one["id"]: one for one in report["candidates"]}
    line = [known[name] for name in report["ancestry"]]
    assert len(line) > 2
    assert (line[0]["text"], line[-1]["text"], report["changed"]) == (report["first"], report["winner"], True)
    assert all(before["id"] == after["parents"][0] for before, after in pairwise(line))
    gain = report["holdout"]["winner"] - report["holdout"]["first"]
    assert gain == pytest.approx(report["numbers"]["test"]["mean"])
    page = shop.call("GET", f"/runs/{run_id}/report?format=html").text
    assert page.count("<details>") == len(line) - 1
    assert f"{line[-1]['id']}, edited from {line[-2]['id']}" in page


SEED, CHILD = {"kind": "seed"}, {"kind": "edit"}


@pytest.mark.parametrize(
    ("verdict", "candidates", "numbers", "said"),
    [
        ("no_improvement", [SEED], {}, "No other prompt was tried"),
        ("no_improvement", [SEED, CHILD], {}, "Nothing that was tried did better"),
        ("not_proven", [SEED, CHILD], {"validated": False, "test": {"count": 0}}, "too small to keep examples back"),
        ("not_proven", [SEED, CHILD], {"test": {"count": 0, "mean": 0.0}}, "before it could be tested"),
        ("not_proven", [SEED, CHILD], {"test": {"count": 30, "mean": -0.1}}, "does not do better"),
        ("not_proven", [SEED, CHILD], {"test": {"count": 30, "mean": 0.1}}, "do not prove it"),
        ("proven", [SEED, CHILD], {"test": {"count": 30, "mean": 0.3}}, "proven better"),
    ],
)
def test_the_page_says_what_the_numbers_say(
    verdict: str, candidates: list[dict[str, Any]], numbers: dict[str, Any], said: str
) -> None:
    """A verdict in words never claims a test that was not made, a gain that is none, or tries that there were not."""
    assert said in verdict_of({"verdict": verdict, "candidates": candidates, "numbers": numbers})


def test_differences_are_by_lines_then_by_words() -> None:
    """What changed within a line is marked alone; texts too long to compare are shown as gone and come; all escaped."""
    assert difference("Say it.\nBe <b>.", "Say it.\nBe <i> now.") == (
        "Say it.\nBe <del>&lt;b&gt;.</del><ins>&lt;i&gt; now.</ins>"
    )
    long, other = ("\n".join(f"{word} {n}" for n in range(2_000)) for word in "ab")
    assert difference(long, other) == f"<del>{long}</del><ins>{other}</ins>"
    assert difference(long, long) == long


def test_a_report_outlives_what_it_was_about(shop: Shop, toy: Toy) -> None:
    """Models and the budget that applied, also one by default, are facts of the run; the pairs that were not tested
    are told."""
    run_id = ended(shop, toy)
    toy.gone = True
    report = shop.call("GET", f"/runs/{run_id}/report").json()
    assert report["winnerModels"] == {"workingModel": "m", "metaModel": "editor", "judgeModel": None}
    assert report["budget"] == {"calls": 400}
    toy.gone = False
    short = ended(shop, toy, budget={"calls": 80})
    page = shop.call("GET", f"/runs/{short}/report?format=html").text
    test = shop.call("GET", f"/runs/{short}/report").json()["numbers"]["test"]
    assert 0 < test["count"] < 30
    assert f"{test['count']} of the 30 examples that were kept back" in page


class Reader(HTMLParser):
    """What a page would run or load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        names = {"src", "href", "xlink:href"}
        self.links += [value for name, value in attrs if name in names and value and not value.startswith("#")]


def test_the_page_shows_it_and_loads_nothing(shop: Shop, toy: Toy) -> None:
    """A browser gets a page with plots and marked differences; a prompt's own markup is text on it."""
    path = f"/runs/{ended(shop, toy)}/report"
    page = shop.call("GET", path, headers={"accept": "text/html,application/xhtml+xml"})
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.text == shop.call("GET", f"{path}?format=html").text
    reader = Reader()
    reader.feed(page.text)
    assert {"svg", "ins", "table"} <= reader.tags
    assert not {"script", "img", "iframe", "link"} & reader.tags
    assert reader.links == []
    assert "&lt;script&gt;" in page.text
    assert re.search(r"<ins>[^<]*(alpha|beta|gamma|delta)", page.text)
    assert shop.call("GET", path).headers["content-type"] == "application/json"


def test_a_plain_run_has_a_report_too(shop: Shop) -> None:
    """Also one that has no result yet, in both forms."""
    run_id = shop.call("POST", "/runs", body(shop)).json()["runId"]
    report = shop.call("GET", f"/runs/{run_id}/report")
    assert (report.status_code, report.json()["kind"]) == (200, "refinement")
    assert shop.call("GET", f"/runs/{run_id}/report?format=html").status_code == 200
    assert shop.call("GET", f"/runs/{'0' * 24}/report").status_code == 404


def test_a_plain_runs_report_shows_what_each_iteration_changed(shop: Shop) -> None:
    """The texts of its prompts, also of one that was deleted since it began; the page marks the differences."""
    run = shop.call("POST", "/runs", body(shop, maxIterations=2)).json()

    def suggest_more(job: Job) -> Completed:
        draft = {"name": "better", "type": "SYSTEM", "status": "DRAFT", "prompt": f"More {job.id}.", "isPublic": False}
        made = shop.call("POST", "/prompts", draft).json()["promptId"]
        return Completed(result={"text": "a"}, eval_result={"score": 0.5}, suggested_prompt_id=made)

    Bench(shop.api.storage, shop.api.storage, client_id=shop.client_id).stepped(run["runId"], play=suggest_more)
    [first] = run["initialWorkingPromptIds"]
    text = shop.call("GET", f"/prompts/{first}").json()["prompt"]
    assert shop.call("DELETE", f"/prompts/{first}").status_code == 204
    report = shop.call("GET", f"/runs/{run['runId']}/report").json()
    steps = report["models"][0]["iterations"]
    assert report["prompts"][first] == text
    assert [report["prompts"][one["suggestedPromptId"]] for one in steps] == [f"More {one['jobId']}." for one in steps]
    page = shop.call("GET", f"/runs/{run['runId']}/report?format=html").text
    assert f"<ins>{steps[-1]['jobId']}.</ins>" in page


def test_a_proven_winner_is_promoted_when_asked(shop: Shop, toy: Toy) -> None:
    """The draft becomes a published version, once and for all; asking again changes nothing."""
    run_id = ended(shop, toy)
    winner = shop.call("GET", f"/runs/{run_id}").json()["search"]["bestPromptId"]
    draft = shop.call("GET", f"/prompts/{winner}").json()
    assert (draft["status"], draft["lineage"]["runId"]) == ("DRAFT", run_id)
    for _ in range(2):
        promoted = shop.call("POST", f"/runs/{run_id}/promote")
        assert (promoted.status_code, promoted.json()["search"]["verdict"]) == (200, "promoted")
    assert shop.call("GET", f"/prompts/{winner}").json()["status"] == "PUBLISHED"


def test_what_is_not_proven_is_not_promoted(shop: Shop, toy: Toy) -> None:
    """A run without a winner, one that still goes on, and another client's are refused with 400."""
    toy.always_useless = True
    nothing = ended(shop, toy)
    running = shop.call("POST", "/runs", asked(shop)).json()["runId"]
    for run_id in (nothing, running, "0" * 24):
        assert shop.call("POST", f"/runs/{run_id}/promote").status_code == 400
