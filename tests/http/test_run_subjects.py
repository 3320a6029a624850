"""Searches over stored datasets, on every back-end: what they take from storage, and what is wrong with it."""

from typing import Any

import pytest

from llm_optimizer.search_store import StateStore
from tests.http.test_runs import body
from tests.support.api import Api, model_body
from tests.support.jobs_http import Shop, open_shop
from tests.support.optimizing import Bench
from tests.support.toy_world import PROMPT, WORDS, Toy, example
from utilities.clock import SystemClock


@pytest.fixture
def shop(api: Api) -> Shop:
    """A client with a prompt and a model."""
    return open_shop(api)


def uploaded(shop: Shop, count: int = 60, **headers: Any) -> str:
    """The id of a dataset of the toy's examples."""
    known = [example(number) for number in range(count)]
    items = [{"id": one.id, "input": one.input, "expected": one.expected} for one in known]
    answer = shop.call("POST", "/datasets", {"name": "toy", "items": items}, **headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["datasetId"])


def prompt(shop: Shop, text: str) -> str:
    made = shop.api.new_prompt(shop.headers, name=f"p-{len(text)}-{text[:20]}", prompt=text)
    return str(made["promptId"])


def begun(shop: Shop, **fields: Any) -> Any:
    first, others = prompt(shop, PROMPT), {"budget": {"calls": 500}, "promote": "when_proven", "temperature": 0}
    values = {"initialWorkingPromptIds": [first], **others, **fields}
    return shop.call("POST", "/runs", body(shop, **values))


def driven(shop: Shop, run_id: str, toy: Toy) -> dict[str, Any]:
    """The run at its end."""
    bench = Bench(shop.api.storage, shop.api.storage, client_id=shop.client_id)
    bench.stepped(run_id, play=toy.play, most=6000)
    found: dict[str, Any] = shop.call("GET", f"/runs/{run_id}").json()
    return found


def test_from_a_dataset_to_a_proven_prompt(shop: Shop) -> None:
    """The evaluation prompt's judge scores the answers; the winner is published, and what it took is told by role."""
    run = driven(shop, begun(shop, dataset=uploaded(shop)).json()["runId"], Toy(judged=True))
    assert (run["status"], run["search"]["verdict"]) == ("COMPLETED", "promoted")
    assert any(word in run["search"]["bestPrompt"] for word in WORDS)
    assert set(run["spent"]) == {"work", "eval", "meta"}
    judged = next(job for job in jobs_of(shop, run) if job["clientReference"]["role"] == "eval")
    assert judged["status"] == "CONSUMED"
    assert judged["model"] == shop.model


def jobs_of(shop: Shop, run: dict[str, Any], limit: int = 1000) -> list[dict[str, Any]]:
    path = f"/jobs?clientReference.runId={run['runId']}&limit={limit}"
    found: list[dict[str, Any]] = shop.call("GET", path).json()
    return found


def test_meta_prompts_with_placeholders_are_used(shop: Shop) -> None:
    """A meta prompt that says where prompt and feedback go is the meta-model's; prompts after the first stay as they
    are behind it."""
    own = prompt(shop, "Mine.\n```\n{{prompt}}\n```\n{{feedback}}")
    initial = [prompt(shop, PROMPT), prompt(shop, "And be brief.")]
    dataset = uploaded(shop)
    run = driven(
        shop,
        begun(shop, dataset=dataset, metaPromptId=own, initialWorkingPromptIds=initial).json()["runId"],
        Toy(judged=True),
    )
    jobs = {job["clientReference"]["role"]: shop.api.storage.jobs.get(job["jobId"]) for job in jobs_of(shop, run)}
    meta, work = jobs["meta"], jobs["work"]
    assert meta is not None
    assert work is not None
    assert (meta.instructions or "").startswith("Mine.")
    assert (work.instructions or "").endswith("\n\nAnd be brief.")


def test_an_evaluator_scores_without_a_judge(shop: Shop) -> None:
    """Its metrics decide alone: no judge is asked, and their feedback is what the meta-model gets."""
    metric = {"kind": "exact", "parameters": {"value": "right"}}
    evaluator = shop.call("POST", "/evaluators", {"name": "right", "metrics": [metric]}).json()["evaluatorId"]
    run = driven(shop, begun(shop, dataset=uploaded(shop), evaluator=evaluator).json()["runId"], Toy())
    assert (run["status"], set(run["spent"])) == ("COMPLETED", {"work", "meta"})
    assert run["search"]["baseline"] is not None
    meta = next(job for job in jobs_of(shop, run) if job["clientReference"]["role"] == "meta")
    stored = shop.api.storage.jobs.get(meta["jobId"])
    assert stored is not None
    assert 'expected "right"' in (stored.instructions or "")


def test_judges_are_not_asked_of_answers_whose_gate_has_failed(shop: Shop) -> None:
    """A hard gate that failed settles an answer: the search pays for judging the others alone."""
    gate = {"kind": "exact", "name": "gate", "parameters": {"value": "right"}, "hard": True, "weight": 0}
    judge = {"kind": "llm_judge", "name": "tone", "parameters": {"model": shop.model, "rubric": "is right"}}
    evaluator = shop.call("POST", "/evaluators", {"name": "gated", "metrics": [judge, gate]}).json()["evaluatorId"]
    answer = begun(shop, dataset=uploaded(shop), evaluator=evaluator, budget={"calls": 300})
    run = driven(shop, answer.json()["runId"], Toy(judged=True))
    assert run["status"] == "COMPLETED"
    jobs = jobs_of(shop, run)
    judged = [job for job in jobs if job["clientReference"]["role"] == "eval"]
    assert {job["requestData"]["output"] for job in judged} == {"right"}
    wrong = [job for job in jobs if (job["responseData"] or {}).get("text") not in (None, "right")]
    assert wrong


def test_combinations_have_judges_of_their_own(shop: Shop) -> None:
    """Each judges for its own search, one for all between them and at the end; one that is named twice counts once."""
    for name in ("second", "third"):
        shop.api.new_model(**model_body(name=name))
    arms = [{"workingModel": shop.model, "metaModel": shop.model, "judgeModel": judge} for judge in ("second", "third")]
    asked = [*arms, arms[0], {"workingModel": shop.model, "metaModel": shop.model, "judgeModel": shop.model}]
    asked.append({"workingModel": shop.model, "metaModel": shop.model})
    fields = {"strategy": {"name": "combos", "parameters": {"rung": 30}}, "budget": {"calls": 1500}}
    answer = begun(shop, dataset=uploaded(shop), modelCombinations=asked, **fields)
    assert [one["judgeModel"] for one in answer.json()["modelCombinations"]] == ["second", "third", shop.model, None]
    run = driven(shop, answer.json()["runId"], Toy(judged=True))
    assert (run["status"], run["search"]["verdict"]) == ("COMPLETED", "promoted")
    report = shop.call("GET", f"/runs/{run['runId']}/report").json()
    assert [one["judgeModel"] for one in report["combinations"]] == ["second", "third", None]
    assert all(one["score"] is not None for one in report["combinations"])
    page = shop.call("GET", f"/runs/{run['runId']}/report?format=html").text
    assert "judged for that by second" in page
    jobs = [job for job in jobs_of(shop, run, limit=5000) if job["clientReference"]["role"] == "eval"]
    assert {job["model"] for job in jobs} == {"second", "third", shop.model}
    stored = StateStore(shop.api.storage.run_parts, SystemClock())
    kept = shop.api.storage.runs.get(run["runId"])
    assert kept is not None
    assert kept.progress is not None
    assert kept.progress.at is not None
    proof = set(stored.read(kept.id, kept.progress.at)["split"]["holdout"])
    assert {job["model"] for job in jobs if job["clientReference"]["example"] in proof} == {shop.model}
    assert run["spent"]["eval"]["inputTokens"] == 10 * len(jobs)


def test_models_that_cannot_be_are_named(shop: Shop) -> None:
    """An unknown one, whatever it is for, and a judge where the evaluator asks none; a duel needs one that compares."""
    metric = {"kind": "exact", "parameters": {"value": "right"}}
    evaluator = shop.call("POST", "/evaluators", {"name": "right", "metrics": [metric]}).json()["evaluatorId"]
    arm = {"workingModel": shop.model, "metaModel": shop.model}
    dataset = uploaded(shop, 20)
    for fields, named in (
        ({"modelCombinations": [arm, {**arm, "judgeModel": "none"}]}, "modelCombinations[1].judgeModel: model not"),
        ({"modelCombinations": [arm, {**arm, "workingModel": "none"}]}, "modelCombinations[1].workingModel: model not"),
        ({"modelCombinations": [{**arm, "metaModel": "none"}, arm]}, "modelCombinations[0].metaModel: model not"),
        ({"referenceJudge": "none"}, "referenceJudge: model not found"),
        ({"referenceJudge": shop.model, "evaluator": evaluator}, "referenceJudge: the evaluator asks no judge"),
        ({"strategy": {"name": "duel"}, "evaluator": evaluator}, "strategy.name: duel needs"),
    ):
        answer = begun(shop, dataset=dataset, **fields)
        assert (answer.status_code, named in answer.json()["detail"]) == (400, True), answer.text


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"dataset": "0" * 24}, "dataset"),
        ({"evaluator": "0" * 24}, "evaluator"),
        ({"budget": {"amount": {"amount": 1, "currency": "EUR"}}}, "budget.amount"),
        ({"modelCombinations": [{"workingModel": "none", "metaModel": "none"}]}, "model"),
    ],
)
def test_what_a_run_cannot_use_is_named(shop: Shop, fields: dict[str, Any], named: str) -> None:
    """400 with the field, and neither run nor state is left behind."""
    answer = begun(shop, **{"dataset": uploaded(shop, 20), **fields})
    assert (answer.status_code, named in answer.json()["detail"]) == (400, True), answer.text
    assert shop.call("GET", "/runs").json() == []


def test_another_clients_dataset_is_not_there(shop: Shop) -> None:
    """It is refused as one that does not exist."""
    other = shop.api.new_client("other")
    answer = begun(shop, dataset=uploaded(shop, 20, headers=other))
    assert (answer.status_code, "dataset not found" in answer.json()["detail"]) == (400, True)


def test_a_dataset_that_goes_away_fails_the_run(shop: Shop) -> None:
    """The reason names it, no job is left in the queue, and the report is still there."""
    dataset = uploaded(shop)
    run = begun(shop, dataset=dataset).json()
    assert shop.call("DELETE", f"/datasets/{dataset}").status_code == 204
    failed = driven(shop, run["runId"], Toy())
    assert failed["status"] == "FAILED"
    assert "dataset not found" in failed["failureReason"]
    assert shop.call("GET", f"/runs/{run['runId']}/report").status_code == 200
    assert shop.call("GET", f"/runs/{run['runId']}/report?format=html").status_code == 200
    assert [job["status"] for job in jobs_of(shop, run)] == []


def test_several_models_are_compared(shop: Shop) -> None:
    """Each combination has a search of its own, and the winner says with which models it was found."""
    shop.api.new_model(**model_body(name="second"))
    arms = [{"workingModel": name, "metaModel": shop.model} for name in (shop.model, "second")]
    answer = begun(shop, dataset=uploaded(shop), modelCombinations=arms, strategy={"name": "combos"})
    run = driven(shop, answer.json()["runId"], Toy(judged=True))
    assert run["status"] == "COMPLETED"
    assert {job["model"] for job in jobs_of(shop, run) if job["clientReference"]["role"] == "work"} == {
        shop.model,
        "second",
    }
    stored = shop.api.storage.runs.get(run["runId"])
    assert stored is not None
    assert stored.progress is not None
    assert stored.progress.at is not None
    state = StateStore(shop.api.storage.run_parts, SystemClock()).read(stored.id, stored.progress.at)
    assert state["state"]["setup"]["arms"] == 2
