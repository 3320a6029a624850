"""Canaries over HTTP: set on a flow, given to its jobs, scored, and rolled back where they are worse."""

from typing import Any

import httpx
import pytest

from api.models.job_answer import JobResponse
from api.models.prompt_flows import PromptFlowResponse
from engine.jobs.job import Job
from engine.jobs.outcome import Completed
from engine.records.runs import RunStatus
from engine.records.searches import SearchProgress, SearchTerms, Verdict
from tests.http.test_answers_fit import assert_fits
from tests.support.api import Api
from tests.support.factories import make_run
from tests.support.jobs_http import Shop, open_shop
from tests.support.optimizing import settled
from tests.support.waiting import eventually
from utilities.clock import SystemClock

CLOCK = SystemClock()
RIGHT = [{"kind": "exact", "parameters": {"value": "right"}}]


@pytest.fixture
def shop(api: Api) -> Shop:
    return open_shop(api)


@pytest.fixture
def local(local_api: Api) -> Shop:
    return open_shop(local_api)


def prompt(shop: Shop, **fields: Any) -> str:
    return str(shop.api.new_prompt(shop.headers, **fields)["_id"])


def evaluator(shop: Shop) -> str:
    return str(shop.call("POST", "/evaluators", {"name": "right", "metrics": RIGHT}).json()["evaluatorId"])


def flow_of(shop: Shop, *prompts: str) -> str:
    made = shop.call("POST", "/prompt-flows", {"name": "flow", "promptIds": list(prompts or (shop.prompt,))})
    return str(made.json()["flowId"])


def changed(shop: Shop, flow: str, **fields: Any) -> httpx.Response:
    return shop.call("PATCH", f"/prompt-flows/{flow}", fields)


def tried(shop: Shop, share: float = 0.5) -> tuple[str, str]:
    """Ids of a new flow and of its canary, all of whose jobs are scored."""
    flow, canary = flow_of(shop), prompt(shop)
    answer = changed(shop, flow, canary={canary: share}, canaryEvaluator=evaluator(shop), canarySample=1)
    assert answer.status_code == 200, answer.text
    return flow, canary


def posted(shop: Shop, flow: str, count: int) -> list[dict[str, Any]]:
    body = shop.body(prompts=None, promptFlow=flow)
    answer = shop.call("POST", "/jobs/batch", {"jobs": [{**body, "requestData": {"n": n}} for n in range(count)]})
    assert answer.status_code == 201, answer.text
    made: list[dict[str, Any]] = answer.json()
    return made


def driven(shop: Shop, flow: str, canary: str, *, worse: bool) -> dict[str, Any]:
    """The flow once a look is taken. A worse canary is never right; else all are wrong at one fourth of the jobs."""

    def text(job: Job) -> str:
        wrong = canary in job.working_prompts if worse else job.request_data["n"] % 4 == 0
        return "wrong" if wrong else "right"

    def taken() -> dict[str, Any] | None:
        jobs = shop.claim()
        shop.api.storage.jobs.settle([settled(job, Completed(result={"text": text(job)})) for job in jobs], CLOCK.now())
        for job in jobs:
            shop.api.signals.settled(job.id)
        shown: dict[str, Any] = shop.call("GET", f"/prompt-flows/{flow}").json()
        return shown if shown["canaryState"][0]["looks"] else None

    taken()
    shop.api.optimizer.start()
    return eventually(taken, what="the first look was taken")


def test_a_worse_canary_is_rolled_back(shop: Shop) -> None:
    """Its jobs say which prompt they had and are the client's as ever; at the first look its share is gone, with the
    numbers, and later jobs get the flow's own prompts."""
    flow, canary = tried(shop)
    jobs = posted(shop, flow, 100)
    own = [job for job in jobs if job["canary"]]
    assert {(*job["workingPrompts"],) for job in own} == {(canary,)}
    assert {(*job["workingPrompts"],) for job in jobs if not job["canary"]} == {(shop.prompt,)}
    assert 25 <= len(own) <= 75
    assert_fits(own[0], JobResponse)
    shown = driven(shop, flow, canary, worse=True)
    [state] = shown["canaryState"]
    assert (shown["canary"], state["state"], state["promptId"], state["share"]) == (None, "rolled_back", canary, 0.0)
    assert (state["replaces"], state["finding"]["pairs"], state["finding"]["mean"]) == (shop.prompt, 20, -1.0)
    assert state["finding"]["pWorse"] < 0.0125
    assert state["finding"]["high"] < 0
    assert_fits(shown, PromptFlowResponse)
    shadows = shop.call("GET", "/jobs?operation=canary").json()
    assert {job["clientReference"]["promptFlowId"] for job in shadows} == {flow}
    assert {job["clientReference"]["jobId"] for job in shadows} <= {job["jobId"] for job in own}
    assert {shop.get(job["jobId"])["status"] for job in own} == {"PROCESSED"}
    assert {job["canary"] for job in posted(shop, flow, 20)} == {None}


def test_an_equal_canary_goes_on(local: Shop) -> None:
    """A look that finds nothing leaves it its share."""
    flow, canary = tried(local)
    posted(local, flow, 100)
    shown = driven(local, flow, canary, worse=False)
    [state] = shown["canaryState"]
    assert (shown["canary"], state["state"]) == ({canary: 0.5}, "running")
    assert (state["finding"]["mean"], state["finding"]["pWorse"]) == (0.0, 1.0)


def test_a_canary_is_set_changed_and_ended(local: Shop) -> None:
    """A new share keeps its pairs, another test begins anew, {} ends it; what is not named stays."""
    flow, canary = tried(local, 0.1)
    first = local.call("GET", f"/prompt-flows/{flow}").json()
    assert (first["canary"], first["canarySample"], first["canaryState"][0]["state"]) == ({canary: 0.1}, 1.0, "running")
    more = changed(local, flow, canary={canary: 0.3}).json()
    assert (more["canary"], more["canaryState"][0]["since"]) == ({canary: 0.3}, first["canaryState"][0]["since"])
    anew = changed(local, flow, canarySample=0.5).json()
    assert anew["canaryState"][0]["since"] > more["canaryState"][0]["since"]
    assert changed(local, flow, name="other").json()["canaryState"] == anew["canaryState"]
    over = changed(local, flow, canary={}).json()
    assert (over["canary"], over["canaryState"], over["canarySample"]) == (None, [], 0.5)
    assert {job["canary"] for job in posted(local, flow, 20)} == {None}


def test_a_canary_that_is_deleted_stops_no_job(local: Shop) -> None:
    """Jobs get the flow's own prompts."""
    flow, canary = tried(local)
    assert local.call("DELETE", f"/prompts/{canary}").status_code == 204
    local.api.services.intake._catalogue.forget()
    assert {(job["canary"], *job["prompts"]) for job in posted(local, flow, 20)} == {(None, local.prompt)}


def test_what_cannot_be_a_canary_is_refused(local: Shop) -> None:
    """With the field and the reason: shares out of bounds, a prompt related to nothing, no evaluator, another's."""
    flow, fits, scorer = flow_of(local), prompt(local), evaluator(local)
    alone = prompt(local, name="alone")
    for canary, said in (
        ({fits: 0.6}, "0.5"),
        ({fits: 0}, "greater than 0"),
        ({fits: 0.3, prompt(local): 0.3}, "add up to more than 0.5"),
        ({alone: 0.1}, "descends from none of the flow's prompts"),
        ({local.prompt: 0.1}, "one of the flow's own"),
    ):
        answer = changed(local, flow, canary=canary, canaryEvaluator=scorer)
        assert (answer.status_code, said in answer.text) == (422, True), answer.text
    bare = changed(local, flow, canary={fits: 0.1})
    assert (bare.status_code, "need an evaluator" in bare.text) == (422, True)
    other = open_shop(local.api)
    for fields, said in (
        ({"canary": {fits: 0.1}, "canaryEvaluator": evaluator(other)}, "evaluator not found"),
        ({"canary": {other.prompt: 0.1}, "canaryEvaluator": scorer}, "prompt not found"),
    ):
        answer = changed(local, flow, **fields)
        assert (answer.status_code, said in answer.text) == (400, True), answer.text
    public = local.api.http.post(
        "/prompt-flows", json={"name": "f", "promptIds": [local.prompt], "isPublic": True}, headers=local.api.admin
    ).json()["flowId"]
    told = local.as_admin("PATCH", f"/prompt-flows/{public}", {"canary": {fits: 0.1}, "canaryEvaluator": scorer})
    assert (told.status_code, "public flow has no client" in told.text) == (422, True)


def test_a_proven_winner_is_tried_out_before_it_is_published(local: Shop) -> None:
    """With a body, promote makes it a canary of a flow that has its parent, beside those that there are, scored by the
    run's evaluator; the prompt stays a draft. What is not proven, or does not fit, is refused."""
    flow, first = tried(local, 0.1)
    scorer, winner = evaluator(local), prompt(local, status="DRAFT")

    def run(verdict: Verdict, **terms: Any) -> str:
        made = make_run(
            client_id=local.client_id,
            initial_prompt_ids=(local.prompt,),
            search=SearchTerms(dataset_id="d", **terms),
            progress=SearchProgress(winner_id=winner, verdict=verdict),
            status=RunStatus.COMPLETED,
        )
        local.api.storage.runs.add(made)
        return f"/runs/{made.id}/promote"

    proven, doubtful = run(Verdict.PROVEN, evaluator_id=scorer), run(Verdict.NOT_PROVEN, evaluator_id=scorer)
    body = {"promptFlow": flow, "share": 0.2}
    stray = flow_of(local, first)
    for path, asked, status, said in (
        (doubtful, body, 400, "force=true"),
        (run(Verdict.PROVEN), body, 400, "no evaluator"),
        (proven, {**body, "promptFlow": stray}, 400, "lacks prompt"),
        (proven, {**body, "promptFlow": "0" * 24}, 400, "not found"),
        (proven, {**body, "share": 0.7}, 422, "0.5"),
        (proven, {"share": 0.2}, 422, "promptFlow"),
    ):
        refused = local.call("POST", path, asked)
        assert (refused.status_code, said in refused.text) == (status, True), refused.text
    answer = local.call("POST", proven, body)
    assert (answer.status_code, answer.json()["search"]["verdict"]) == (200, "proven")
    shown = local.call("GET", f"/prompt-flows/{flow}").json()
    assert (shown["canary"], shown["canaryEvaluator"]) == ({first: 0.1, winner: 0.2}, scorer)
    assert local.call("GET", f"/prompts/{winner}").json()["status"] == "DRAFT"
    assert local.call("POST", f"{doubtful}?force=true", body).status_code == 200
